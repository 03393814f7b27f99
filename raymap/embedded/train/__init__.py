"""Trains the embedded base from scratch: `python -m raymap.embedded.train all`."""
