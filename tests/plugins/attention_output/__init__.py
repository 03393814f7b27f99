"""Two personalization methods as another package would add them; tests put its folder on PYTHONPATH."""
