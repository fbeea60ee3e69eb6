"""Run folders, read for showing."""
