"""Data sets that ship with the package, each in a folder of its own with its generator."""
