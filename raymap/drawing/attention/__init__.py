"""Cross-attention of base and adapted model side by side, reduced on the device while both denoise."""
