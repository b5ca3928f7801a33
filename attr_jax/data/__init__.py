"""Data sets, the grain input pipeline and the synthetic worlds. No jax in here."""
