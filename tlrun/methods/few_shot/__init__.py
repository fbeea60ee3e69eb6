"""New classes from a few images each."""
