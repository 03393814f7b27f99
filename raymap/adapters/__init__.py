"""Adapters: read from the files people have, checked against a base, kept resident, swapped in place."""
