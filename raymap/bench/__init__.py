"""Measures how fast setups generate images, how near they come to a device's peak, and how other programs compare."""
