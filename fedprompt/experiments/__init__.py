"""Experiments on one machine: training, scoring, and evaluation protocols."""
