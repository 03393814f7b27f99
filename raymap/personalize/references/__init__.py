"""Reference images: where public ones are and under which terms, how they are fetched, how all are read."""
