"""Images, labels and class names: read, checked, decoded by one rule, and divided among sites."""
