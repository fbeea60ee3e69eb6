"""Lock files: the one wrapper of `filelock`. The kernel frees a lock when its process ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


class LockTaken(Exception):
    """Another process, or another part of this one, holds the lock file."""


@contextmanager
def file_lock(file: str | os.PathLike[str], *, seconds: float | None = None) -> Iterator[None]:
    """Hold a lock file, which is made if it is not there.

    seconds: how long to wait for it before LockTaken is raised; None = for ever. Raises OSError
    where the file cannot be made.
    """
    import filelock  # 0.08 s, and --help needs none

    lock = filelock.FileLock(file, timeout=-1 if seconds is None else seconds)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise LockTaken(f"{os.fspath(file)} is locked") from error
    try:
        yield
    finally:
        lock.release()
