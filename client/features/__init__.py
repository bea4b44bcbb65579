"""Encode a site's images once, and keep what was computed."""
