"""The verbs of ``flower-server``: each reads its options, calls its owner and tells the result."""
