"""Passes: each module changes a model in one way, and knows how to do nothing else."""
