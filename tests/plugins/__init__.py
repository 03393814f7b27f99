"""Packages that add something to raymap, as others would write them."""
