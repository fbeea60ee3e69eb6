"""Adaptation by a distance between domains, optimal transport included."""
