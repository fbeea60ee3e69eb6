"""How several task losses become one update, a file each; the contract is `base.py`."""
