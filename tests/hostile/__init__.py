"""Hostile input: files that nobody wrote in good faith, given to every reader of the package."""
