"""Rebuilds the embedded base from nothing: `python -m raymap.embedded.train all`."""
