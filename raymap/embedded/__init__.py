"""The embedded base: a small text-to-image model, its judges, and the procedural world they were trained on."""
