"""Rewrites of a finished fp32 graph, one file each: fewer bits at a measured price."""
