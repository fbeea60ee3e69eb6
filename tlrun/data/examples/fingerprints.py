"""What is known of an image file without its pixels: a hash of its content, the depth of its grey.

Remembered in the cache by path, size and time of change, so a second run reads no file for it.
Equal content under two names is the same image: learned and tested on, or with two labels, it would
make figures wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tlrun.data.examples.decode import Extremes, extremes
from tlrun.data.examples.download import cache_root, file_hash, locked
from tlrun.data.examples.image_files import text_of
from tlrun.errors import DataError


class Fingerprint(NamedTuple):
    """content: sha256 of the file. extremes: of deep grey, None for all other images."""

    content: str
    extremes: Extremes | None


def fingerprints(files: Sequence[Path]) -> list[Fingerprint]:
    """One per file, in order. Raises DataError that names a file that cannot be read."""
    places = [str(f.resolve()) for f in files]
    parents = sorted({os.path.dirname(path) for path in places})
    tag = hashlib.sha256(os.fsencode("\n".join(parents))).hexdigest()[:16]
    index = cache_root() / "index" / f"{tag}.json"
    try:
        remembered: dict[str, list[Any]] = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        remembered = {}

    def entry_of(file: Path, path: str) -> list[Any]:
        stat = file.stat()
        entry = remembered.get(path)
        if entry and len(entry) == 4 and entry[:2] == [stat.st_size, stat.st_mtime_ns]:
            return entry
        return [stat.st_size, stat.st_mtime_ns, file_hash(file, "sha256"), _extremes(file)]

    try:
        with ThreadPoolExecutor() as pool:
            entries = [*pool.map(entry_of, files, places)]
    except OSError as error:
        where = text_of(error.filename or "")
        raise DataError(f"cannot read the image '{where}' ({error.strerror}).") from error
    fresh = dict(zip(places, entries, strict=True))
    if fresh != remembered:
        with locked(index):
            part = index.with_name(index.name + ".part")
            part.write_text(json.dumps(fresh), encoding="utf-8")
            os.replace(part, index)
    return [Fingerprint(e[2], Extremes(*e[3]) if e[3] else None) for e in entries]


def _extremes(file: Path) -> list[Any] | None:
    try:
        found = extremes(file)
    except DataError:  # named when it is decoded
        return None
    return None if found is None else [*found]
