"""Tune and score a prompt on a site's encoded images."""
