"""Classes without images, by attributes."""
