"""Sets of examples: reading, splits, sizes, downloads."""
