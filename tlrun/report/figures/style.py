"""How every picture looks: one palette, one size, no display needed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

# Okabe & Ito (2008), told apart with any colour vision; yellow is left out: unreadable on white.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STROKES = ("-", "--", ":", "-.")  # once the colours are used up
SOURCE, TARGET, QUIET = LINES[0], LINES[1], "#767676"
# Paul Tol's "muted", two of them darkened, and black. Maps name each class in place too, so
# colour never stands alone.
CLASSES = (
    *("#332288", "#DDAA33", "#117733", "#CC6677", "#44AA99"),
    *("#882255", "#4AA3DF", "#999933", "#AA4499", "#000000"),
)
# What DejaVu Sans cannot write in names of classes is taken from the first of these that is there.
OTHER_SCRIPTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei"),
    *("PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "Arial Unicode MS"),
)
WIDTH = (
    8.0  # inches: 10-point type then reads at the width of the page, and of a phone held sideways
)

DPI = 160


@contextmanager
def figure(
    path: Path, height: float, rows: int = 1, columns: int = 1, **grid: Any
) -> Iterator[tuple[Any, Any]]:
    """Yield (figure, array of axes) and save to `path` on a clean exit."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    look: dict[Any, Any] = {
        "font.family": _families(),
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": QUIET,
        "axes.grid": True,
        "grid.color": "#e4e4e4",
        "axes.axisbelow": True,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "text.parse_math": False,  # a class may be called "$5"
    }
    with plt.rc_context(look):
        fig, axes = plt.subplots(
            rows, columns, figsize=(WIDTH, height), squeeze=False, layout="constrained", **grid
        )
        try:
            yield fig, axes
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.tmp")
            with warnings.catch_warnings():  # a box stands for what no font here has
                warnings.filterwarnings("ignore", message="Glyph .* missing from font")
                _save(fig, draft)
            draft.replace(path)
        finally:
            plt.close(fig)


def _save(fig: Any, path: Path) -> None:
    """As `savefig` to a PNG file, which draws all twice, once for the layout alone, and takes twice
    as long to pack four channels, of which one says nothing."""
    from PIL import Image

    fig.set_dpi(DPI)
    fig.get_layout_engine().execute(fig)
    fig.set_layout_engine("none")
    fig.canvas.draw()
    pixels = np.asarray(fig.canvas.buffer_rgba())[..., :3]
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        path, format="png", dpi=(DPI, DPI), compress_level=3
    )


@cache
def _families() -> list[str]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *[name for name in OTHER_SCRIPTS if name in installed][:1]]


def line_look(place: int) -> dict[str, Any]:
    """Colour and stroke of a picture's line by its place among them."""
    return {
        "color": LINES[place % len(LINES)],
        "ls": STROKES[place // len(LINES) % len(STROKES)],
    }


def short(text: str, limit: int = 16) -> str:
    """Cut in the middle: names of one family ("class number 12") differ at their ends."""
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 3
    return f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"
