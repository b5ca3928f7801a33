"""Blocks used by more than one paper."""
