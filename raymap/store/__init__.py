"""The run folder: what is written where, and how it survives a crash."""
