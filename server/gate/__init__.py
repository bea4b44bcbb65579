"""What a reply must pass before anything is averaged, and what becomes of sites that fail."""
