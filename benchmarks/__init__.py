"""Measure what fedprompt promises: each module prints its figures."""
