"""Adaptation of a source model without source images."""
