"""From score files to map and statistics: polars and scipy, no torch, no Ray."""
