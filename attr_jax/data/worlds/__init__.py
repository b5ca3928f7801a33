"""Synthetic data sets, drawn in the original layouts of the real ones."""
