"""A line of the bench: what was measured, its median and range over rounds, and what is asked."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def say(name: str, values: Sequence[float], digits: int, unit: str = "", aim: str = "") -> None:
    """aim: as ">= 0.97"; it is told whether the median meets it. "" = nothing is asked."""
    print(
        f"{name}: {spread(values, digits)}{unit and f' {unit}'}{_judged(values, aim)}", flush=True
    )


def spread(values: Sequence[float], digits: int) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def _judged(values: Sequence[float], aim: str) -> str:
    if not aim:
        return ""
    sign, _, limit = aim.partition(" ")
    middle = statistics.median(values)
    met = middle <= float(limit) if sign == "<=" else middle >= float(limit)
    return f"; aim {aim}, {'met' if met else 'missed'}"
