"""Files that must stay whole: locks between processes and logs that show tampering."""
