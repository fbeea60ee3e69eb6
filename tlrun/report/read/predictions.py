"""`predictions.csv` of a run folder: what was said of each target test image."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlrun.files.csv_file import read_rows

UNLABELLED = -1  # the index of a class that nobody gave


@dataclass(frozen=True)
class PredictionTable:
    """An entry per target test image; classes as indices or UNLABELLED."""

    index: list[str]
    path: list[str]
    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    confidence: NDArray[np.float64]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        return (self.label != UNLABELLED) & (self.prediction != UNLABELLED)


def read_predictions(path: Path, classes: list[str]) -> PredictionTable | None:
    """None if there is no such table. Labels may be written as names or as indices.

    A name of the label space wins over an index.
    """
    index_of_name = {name: i for i, name in enumerate(classes)}

    def index_of(text: str | None) -> int:
        text = text or ""
        for name in (text, text.strip()):
            if name in index_of_name:
                return index_of_name[name]
        return int(text) if text.strip().isdecimal() else UNLABELLED

    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(read_rows(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    if not rows or "prediction" not in rows[0]:
        return None
    return PredictionTable(
        index=[row.get("index") or "" for row in rows],
        path=[row.get("path") or "" for row in rows],
        label=np.array([index_of(row.get("label")) for row in rows], dtype=np.int64),
        prediction=np.array([index_of(row.get("prediction")) for row in rows], dtype=np.int64),
        confidence=np.array([_float(row.get("confidence")) for row in rows], dtype=np.float64),
    )


def _float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
