"""Losses that join the main updates of any method: `terms=[entropy]`."""
