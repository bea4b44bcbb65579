"""Break the parsers of outside bytes: `python -m tools.fuzz`."""
