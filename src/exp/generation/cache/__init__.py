"""The prediction cache: what a model wrote once, for the same bytes, need not be computed again."""
