"""What the maintainers run: it ships in no wheel."""
