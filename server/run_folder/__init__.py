"""What a run leaves: checkpoints, its status, its record in figures and pictures."""
