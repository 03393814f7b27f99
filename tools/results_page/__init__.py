"""What was found on the embedded base: run folders reduced, recomputed and put into words."""
