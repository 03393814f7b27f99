"""Writes docs/results.md: reduces run folders, recomputes their results, and puts them into words."""
