"""Partial, open-set and semi-supervised targets."""
