"""Serve classes and prompts that can change where a bundle is deployed."""
