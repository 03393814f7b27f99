"""One test of each promise that raymap makes for every family of bases, on tiny pipelines of the real classes."""
