"""The plain classes that Ray actors are made of."""
