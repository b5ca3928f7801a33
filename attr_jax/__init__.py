"""Visual-attribute recognition in JAX/Flax. Importing the package imports nothing heavy."""

__version__ = "0.1.0"
