"""Release the merged prompt under differential privacy, a whole site's contribution at a time."""
