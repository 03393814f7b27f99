"""Compares the cross-attention of base and adapted model, reduced on the device while both denoise."""
