"""Federated tuning of dense low-rank prompts against a frozen CLIP."""
