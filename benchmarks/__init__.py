"""Measurements: each is ``python -m benchmarks.NAME [--json]`` and compares within one process."""
