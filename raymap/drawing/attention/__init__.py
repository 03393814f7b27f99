"""Compares how base and adapted model attend to a prompt, reduced on the device while both denoise."""
