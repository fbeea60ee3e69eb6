"""Teachers and smoothness: consistency between views."""
