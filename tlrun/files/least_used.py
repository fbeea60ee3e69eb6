"""Room in a folder of the cache: what was used longest ago goes first."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def make_room(path: Path, nbytes: int, limit: float) -> None:
    """Remove files beside `path` of the same ending until `nbytes` for it and the others are within
    `limit` bytes, those whose time of change is oldest first; `path` itself stays. A process that
    has one of them open, or mapped, reads on.
    """
    others = {}
    for other in set(path.parent.glob(f"*{path.suffix}")) - {path}:
        with suppress(FileNotFoundError):  # another process makes room at the same time
            others[other] = other.stat()
    total = nbytes + sum(about.st_size for about in others.values())
    for other in sorted(others, key=lambda other: others[other].st_mtime):
        if total <= limit:
            break
        other.unlink(missing_ok=True)
        total -= others[other].st_size
