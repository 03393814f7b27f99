"""FLOPs of bases, counted from shapes of weights and from configurations, without torch."""
