"""Pictures: plots/*.png of runs and sweeps."""
