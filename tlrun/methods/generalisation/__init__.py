"""Several sources, no target: domain generalisation."""
