"""Who takes part: enrolled nodes, what each says of itself, and its images."""
