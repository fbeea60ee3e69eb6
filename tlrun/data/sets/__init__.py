"""One file per data set. A set is a callable `(*, seed, size, download, **own) -> Splits`."""
