"""Backbones, heads and the net that holds them as named parts."""
