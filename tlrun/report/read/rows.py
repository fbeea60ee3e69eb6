"""Rows of metrics.jsonl, on one axis of steps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrun.evaluate.figures import finite

Row = dict[str, Any]


# What the line of a training row begins with: all of it that the steps of later rows depend on.
TRAINING = re.compile(r'\{"step": (\d+), "phase": "([^"\\]*)", "split": "train", .*\}$')


def read_rows(path: Path) -> list[Row]:
    """Each with its `global_step`; lines that cannot be read, torn by kill -9, are left out."""
    return add_global_step([row for line in _lines(path) if (row := _row(line)) is not None])


def read_evaluations(path: Path) -> list[Row]:
    """The rows of evaluations alone, as `read_rows` gives them: in a sweep the others take most of
    the time and memory, and no table needs them."""
    rows: list[Row] = []
    for line in _lines(path):
        if skimmed := TRAINING.match(line):
            rows.append({"step": int(skimmed[1]), "phase": skimmed[2]})
        elif (row := _row(line)) is not None:
            rows.append(row)
    return [row for row in add_global_step(rows) if row.get("split") == "eval"]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _row(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def add_global_step(rows: list[Row]) -> list[Row]:
    """Give each row its step on one axis: phases that count anew follow each other."""
    offset, previous, phase = 0.0, 0.0, None
    placed = []
    for row in rows:
        step = finite(row.get("step"))
        if step is None:
            continue
        if phase is not None and row.get("phase") != phase and step < previous:
            offset += previous
        phase, previous = row.get("phase"), step
        placed.append({**row, "global_step": offset + step})
    return placed


def series(rows: list[Row], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(global step, value) of the rows where `key` is a finite number; both (n,), n may be 0."""
    pairs = [(row["global_step"], v) for row in rows if (v := finite(row.get(key))) is not None]
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def keys(rows: list[Row], prefix: str) -> list[str]:
    """The keys under `prefix` with at least one finite number, in order of appearance."""
    used: dict[str, None] = {}
    for row in rows:
        used.update(
            {k: None for k, v in row.items() if k.startswith(prefix) and finite(v) is not None}
        )
    return list(used)
