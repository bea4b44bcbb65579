"""Pack what leaves a site."""
