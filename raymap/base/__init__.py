"""The text-to-image side: loading a base, swapping adapters in place, drawing seed-matched batches."""
