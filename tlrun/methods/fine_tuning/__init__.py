"""Bounds, conservative training, layer transfer and unsupervised starts."""
