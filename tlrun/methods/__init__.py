"""One file per transfer method, one folder per family; `base.py` is the contract."""
