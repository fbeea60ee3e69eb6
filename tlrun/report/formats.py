"""How values are written, in tables, sentences and pictures alike: `number()` writes every number.

The units of figures are those of `evaluate/figures.py`; four more are the report's own:

    count        20,000
    seconds      3 min 21 s
    p            0.031, and "< 0.001" below that
    correlation  +0.87
"""

from __future__ import annotations

import shlex
from typing import Any, Literal

from tlrun.evaluate import figures
from tlrun.evaluate.figures import Unit, finite

NONE = "–"
Shown = Unit | Literal["count", "seconds", "p", "correlation"]


def number(value: Any, unit: Shown = "number", *, signed: bool = False, sign: bool = False) -> str:
    """0.931 as a share: "93.1"; what is no finite number: a dash.

    signed: as a difference, "+38.1"; sign: with the sign of its unit behind it, "93.1 %".
    """
    x = finite(value)
    if x is None:
        return NONE
    if unit == "count":
        return f"{x:,.0f}"
    if unit == "seconds":
        return _duration(x)
    if unit == "p":
        return f"{x:.3f}" if x >= 0.001 else "< 0.001"
    if unit == "correlation":
        return f"{x:+.2f}"
    if signed:
        return figures.difference(x, unit)
    return figures.with_unit(x, unit) if sign else figures.written(x, unit)


def with_interval(value: Any, half: float | None, unit: Shown) -> str:
    """'91.0 ± 0.8'; the value alone where it has no interval."""
    return number(value, unit) + ("" if half is None else f" ± {number(half, unit)}")


def in_percent(unit: Shown) -> str:
    """' in percent' where that is how values of this unit are written."""
    return " in percent" if unit == "share" else ""


def in_points(unit: Shown) -> str:
    """' points' where that is what a difference is called."""
    return " points" if unit == "share" else ""


def setting(value: str) -> str:
    """A drawn number (0.0027567930613802) to four digits; what a person typed as it is."""
    if len(value) < 9:
        return value
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def plain(value: Any) -> str:
    """A value of config or environment in one line."""
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or NONE
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) or NONE
    if value is None:
        return NONE
    return str(value).lower() if isinstance(value, bool) else str(value)


def sentence_case(text: str) -> str:
    """'target test mean IoU' -> 'Target test mean IoU'."""
    return text[:1].upper() + text[1:]


def command(*words: str) -> str:
    """A line to paste into a shell."""
    return shlex.join(["tlrun", *words])


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
