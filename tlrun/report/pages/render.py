"""Templates of the pages, and what they may call."""

from __future__ import annotations

import base64
import functools
from pathlib import Path
from typing import Any

import jinja2

from tlrun.report.formats import number, plain, setting, with_interval


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
    filters = (number, with_interval, setting, plain, picture)
    env.filters |= {filter.__name__: filter for filter in filters}
    return env


def picture(path: Path) -> str:
    """A PNG as a data: address, so that the page is one file."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
