"""Concept Entanglement Maps for personalized text-to-image models."""
