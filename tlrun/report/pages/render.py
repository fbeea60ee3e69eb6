"""Templates, and how values are written in them: percent, durations, counts, pictures."""

from __future__ import annotations

import base64
import functools
import shlex
from pathlib import Path
from typing import Any

import jinja2

from tlrun.evaluate import figures
from tlrun.evaluate.figures import Unit
from tlrun.report.read.record import number

NONE = "–"


def render(template: str, **values: Any) -> str:
    """Fill a template of templates/; all values are escaped."""
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> jinja2.Environment:
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "percent": percent,
        "count": count,
        "duration": duration,
        "points": points,
        "written": written,
        "difference": difference,
        "p": p_value,
        "setting": setting_text,
        "picture": picture,
        "plain": plain,
    }
    return env


def percent(value: Any, digits: int = 1) -> str:
    """0.9312 -> '93.1'; anything that is no number -> a dash."""
    known = number(value)
    return NONE if known is None else f"{100 * known:.{digits}f}"


def points(value: float | None) -> str:
    """A difference of two accuracies: 0.381 -> '+38.1'; the minus is a plain hyphen."""
    return NONE if value is None else f"{100 * value:+.1f}"


def written(value: Any, unit: Unit) -> str:
    """A figure as its unit is written: 0.93 -> '93.0' or '0.930'; no number -> a dash."""
    known = number(value)
    return NONE if known is None else figures.written(known, unit)


def difference(value: float | None, unit: Unit) -> str:
    """Of two figures: '+38.1' (points) or '+0.381'."""
    return NONE if value is None else figures.difference(value, unit)


def in_percent(unit: Unit) -> str:
    """' in percent' where that is how values of this unit are written."""
    return " in percent" if unit == "share" else ""


def in_points(unit: Unit) -> str:
    """' points' where that is what a difference is called."""
    return " points" if unit == "share" else ""


def p_value(value: Any) -> str:
    """0.0312 -> '0.031'; below a thousandth only that; no test -> a dash."""
    known = number(value)
    return NONE if known is None else f"{known:.3f}" if known >= 0.001 else "< 0.001"


def setting_text(value: str) -> str:
    """A drawn number (0.0027567930613802) to four digits; what a person typed as it is."""
    if len(value) < 9:
        return value
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def count(value: Any) -> str:
    """20000 -> '20,000'."""
    known = number(value)
    return NONE if known is None else f"{known:,.0f}"


def duration(seconds: Any) -> str:
    """201.3 -> '3 min 21 s'."""
    known = number(seconds)
    if known is None:
        return NONE
    whole = round(known)
    if whole < 60:
        return f"{known:.1f} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def picture(path: Path) -> str:
    """A PNG as a data: address, so that the page is one file."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def plain(value: Any) -> str:
    """A value of config or environment in one line."""
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or NONE
    if isinstance(value, dict):
        return ", ".join(f"{key}: {plain(item)}" for key, item in value.items()) or NONE
    if value is None:
        return NONE
    return str(value).lower() if isinstance(value, bool) else str(value)


def command(*words: str) -> str:
    """A line to paste into a shell."""
    return shlex.join(["tlrun", *words])
