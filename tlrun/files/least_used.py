"""Room in a folder of the cache: what was used longest ago goes first."""

from __future__ import annotations

from pathlib import Path


def make_room(path: Path, nbytes: int, limit: float) -> None:
    """Remove files beside `path` of the same ending until `nbytes` for it and the others are within
    `limit` bytes, those whose time of change is oldest first; `path` itself stays.
    """
    others = {other: other.stat() for other in path.parent.glob(f"*{path.suffix}") if other != path}
    total = nbytes + sum(about.st_size for about in others.values())
    for other in sorted(others, key=lambda other: others[other].st_mtime):
        if total <= limit:
            break
        other.unlink(missing_ok=True)
        total -= others[other].st_size
