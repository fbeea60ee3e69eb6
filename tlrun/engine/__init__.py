"""The engine owns everything around a method's losses: see `trainer.py`."""
