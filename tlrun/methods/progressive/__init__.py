"""Tasks that grow harder, one after the other."""
