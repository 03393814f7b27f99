"""What the denoisers of each family of bases are trained to predict: one module per kind of objective."""
