"""Benchmarks: the figures this project states, each made again by one command; see README.md."""
