"""The families of bases: each is described in a file of its own, and the registry lists them."""
