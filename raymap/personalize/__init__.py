"""Personalization: reference images go in, adapter folders come out."""
