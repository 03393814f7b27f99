"""Drawing images: prompts are encoded, a base and its adapters sample, and attention is watched on the way."""
