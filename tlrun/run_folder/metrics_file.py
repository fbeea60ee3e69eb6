"""metrics.jsonl: a row of figures a line, appended while a run trains.

It is the one file that is not written whole: a crash may tear its last row, and the reader leaves
that out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlrun.errors import RunError
from tlrun.run_folder.json_file import Damaged, clean


def append_row(file: Path, row: Mapping[str, Any]) -> None:
    """One line more."""
    line = json.dumps(clean(row), ensure_ascii=False) + "\n"
    with file.open("a", encoding="utf-8") as stream:
        stream.write(line)


def size_on_disk(file: Path) -> int:
    """Bytes that have reached the disk for sure: what a checkpoint remembers."""
    if not file.exists():
        return 0
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
        return os.fstat(stream.fileno()).st_size


def truncate(file: Path, size: int) -> None:
    """Cut off the rows after a checkpoint, on resume. RunError if rows before it are lost."""
    length = file.stat().st_size if file.exists() else 0
    if length < size:
        raise RunError(
            f"{file} is shorter ({length} bytes) than its checkpoint remembers ({size}): "
            "the run cannot be resumed, start it again"
        )
    if length:
        with file.open("rb+") as stream:
            stream.truncate(size)
            os.fsync(stream.fileno())


def read_rows(file: Path) -> list[dict[str, Any]]:
    """All rows; a last line that was torn by a crash is left out.

    Raises Damaged for any other that cannot be read: what is chosen depends on every row.
    """
    if not file.exists():
        return []
    rows = []
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line) if line else None
        except (ValueError, RecursionError):
            row = line
        if row is not None and not isinstance(row, dict):
            raise Damaged(
                f"{file}, line {number}, is damaged: it is no row of figures; the run "
                "has to be started again, or goes on without that row once the line is empty"
            )
        rows += [row] if row else []
    return rows
