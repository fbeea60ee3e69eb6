"""Metrics, validators, selection, and the use of a trained model."""
