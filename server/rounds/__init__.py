"""The rounds: ask the sampled sites, try until a quorum holds, evaluate and commit."""
