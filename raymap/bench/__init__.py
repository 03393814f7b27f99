"""Measures generation setups: how fast, how near the device's peak, beside other programs doing the same work."""
