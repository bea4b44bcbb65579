"""The server: checks every reply, merges prompts, commits each round."""
