"""One file per transfer method; `method.py` is the contract."""
