"""The trainers of the personalization methods, one file per method."""
