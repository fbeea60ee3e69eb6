"""Files that are there whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tlrun.machine import is_alive


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write to a temporary name, flush to the disk, rename, flush the folder's entry."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_half_written(folder: Path) -> None:
    """Remove what `write_atomic` left in processes that were killed, in `folder` and just below."""
    for file in (*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")):
        pid = file.name.split(".")[-2]
        if pid.isdigit() and not is_alive(pid):
            with suppress(OSError):  # of a folder that is read-only
                file.unlink()
