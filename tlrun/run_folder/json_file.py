"""JSON files of a run: strict, whole or not at all, and checked when they are read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlrun.config.value_types import describe, matches
from tlrun.errors import RunError
from tlrun.files.atomic import write_atomic

MADE_BY_RESUME = ("summary.json", "label_space.json")  # if they are missing or damaged


class Damaged(RunError):
    """A file of a run is missing, unreadable or does not hold what it should."""


def write_json(path: str | Path, obj: Any) -> None:
    """Whole or not at all. NaN and infinity become null; numpy and torch scalars numbers."""
    write_atomic(Path(path), json.dumps(clean(obj), indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path, kind: Any = dict) -> Any:
    """Plain values of `kind`, a type hint as in tlrun/config/value_types.py. Raises Damaged."""
    path = Path(path)
    anew = f"; tlrun resume {path.parent} writes it anew" if path.name in MADE_BY_RESUME else ""
    try:
        obj = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Damaged(f"cannot read {path}: {error.strerror}{anew}") from error
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise Damaged(f"{path} is damaged: it is not JSON ({error}){anew}") from error
    if not matches(obj, kind):
        raise Damaged(f"{path} is damaged: expected {describe(kind)}{anew}")
    return obj


def clean(obj: Any) -> Any:
    """Plain JSON values: NaN and infinity -> None, numpy and torch values -> numbers."""
    if isinstance(obj, Mapping):
        return {str(key): clean(value) for key, value in obj.items()}
    if isinstance(obj, str) or obj is None or isinstance(obj, bool | int):
        return obj
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else None
    if isinstance(obj, Sequence | set | frozenset):
        return [clean(value) for value in obj]
    if hasattr(obj, "tolist"):
        return clean(obj.tolist())
    return str(obj)
