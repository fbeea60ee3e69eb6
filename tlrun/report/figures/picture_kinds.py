"""The three kinds of pictures that pictures.json may ask for; pictures.py has the schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrun.evaluate.figures import finite
from tlrun.report.figures.style import LINES, QUIET, figure, line_look, short
from tlrun.report.read.entries import Missing, text, texts

Floats = NDArray[np.float64]
NAMED = 20  # cells in a row or column: with more, the numbers would overlap
TICKS = 40  # names along an axis: with more, every second or third is written
MARKED = 40  # points of a line: with more, the marks would hide it
UPRIGHT = 12  # names under bars: with more, the bars lie on their side


def draw_heatmap(entry: dict[str, Any], path: Path) -> None:
    """Raises Missing if the table has not len(y) rows of len(x) numbers or nulls."""
    x, y = texts(entry.get("x"), "'x'"), texts(entry.get("y"), "'y'")
    rows, unit = _list(entry.get("values"), "'values'", len(y)), text(entry, "unit")
    values = np.stack(
        [numbers(row, f"row {k} of 'values'", len(x)) for k, row in enumerate(rows, 1)]
    )
    _check_some(values)
    with figure(path, float(np.clip(1.7 + 0.42 * len(y), 2.8, 8))) as (fig, axes):
        ax = axes[0, 0]
        ax.set_facecolor("#eeeeee")  # shows through where there is no number
        image = ax.imshow(values, aspect="auto", **_colours(values, unit))
        _name_columns(ax, x)
        every = -(-len(y) // TICKS)
        ax.set_yticks(np.arange(0, len(y), every), [short(name, 24) for name in y[::every]])
        ax.tick_params(labelsize=7 if max(len(x), len(y)) > NAMED else 9)
        ax.set(xlabel=text(entry, "x_label"), ylabel=text(entry, "y_label"))
        ax.grid(False)
        if max(len(x), len(y)) <= NAMED:
            _write_cells(ax, image, values, _decimals(values, narrow=len(x) > 8))
        fig.colorbar(image, ax=ax, label=unit, aspect=30)


def draw_lines(entry: dict[str, Any], path: Path) -> None:
    """Raises Missing if a series has not as many y (and errors) as x."""
    many = _series(entry)
    xs = [_list(one.get("x"), "'x' of a series") for one in many]
    names = list(dict.fromkeys(x for line in xs for x in line if isinstance(x, str)))
    if names and not all(isinstance(x, str) for line in xs for x in line):
        raise Missing("'x' mixes texts and numbers")
    ys = [numbers(one.get("y"), "'y'", len(x)) for one, x in zip(many, xs, strict=True)]
    _check_some(np.concatenate(ys))
    legend = _legend_rows(many)
    with figure(path, 3.6 + 0.22 * legend) as (fig, axes):
        ax = axes[0, 0]
        for place, (one, x, y) in enumerate(zip(many, xs, ys, strict=True)):
            ax.errorbar(
                [names.index(item) for item in x] if names else numbers(x, "'x'", len(x)),
                y,
                yerr=_error(one, len(x)),
                label=text(one, "name"),
                lw=1.6,
                marker="o" if len(x) <= MARKED else None,
                ms=4,
                capsize=3,
                elinewidth=1,
                **line_look(place),
            )
        if names:
            _name_columns(ax, names)
        ax.set(xlabel=text(entry, "x_label"), ylabel=text(entry, "y_label"))
        if legend:
            fig.legend(loc="outside lower left", ncols=2)


def draw_bars(entry: dict[str, Any], path: Path) -> None:
    """Raises Missing if a series has not a value (and an error) per label."""
    labels, many = texts(entry.get("labels"), "'labels'"), _series(entry)
    values = [numbers(one.get("values"), "'values' of a series", len(labels)) for one in many]
    _check_some(np.concatenate(values))
    sideways, legend = len(labels) > UPRIGHT, _legend_rows(many)
    height = 1.0 + len(labels) * max(0.24, 0.13 * len(many)) if sideways else 3.4
    with figure(path, min(height, 40) + 0.22 * legend) as (fig, axes):
        ax = axes[0, 0]
        place, thick = np.arange(len(labels)), 0.8 / len(many)
        decimals = _decimals(np.concatenate(values), narrow=False)
        for k, (one, value) in enumerate(zip(many, values, strict=True)):
            drawn = (ax.barh if sideways else ax.bar)(
                place + (k - (len(many) - 1) / 2) * thick,
                value,
                thick * 0.94,
                color=LINES[k % len(LINES)],
                label=text(one, "name"),
                **{"xerr" if sideways else "yerr": _error(one, len(labels))},
                error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"},
            )
            if not sideways and len(labels) * len(many) <= 16:
                written = ["" if np.isnan(v) else f"{v:.{decimals}f}" for v in value]
                ax.bar_label(drawn, written, fontsize=8, padding=2)
                ax.margins(y=0.12)  # room for these numbers
        ax.axhline(0, color=QUIET, lw=0.8) if not sideways else ax.axvline(0, color=QUIET, lw=0.8)
        if sideways:
            ax.set_yticks(place, [short(name, 24) for name in labels], fontsize=8)
            ax.set_ylim(len(labels) - 0.4, -0.6)
            ax.set_xlabel(text(entry, "y_label"))
        else:
            _name_columns(ax, labels)
            ax.set_xlim(-0.6, len(labels) - 0.4)  # also where the last bar is missing
            ax.set_ylabel(text(entry, "y_label"))
        ax.grid(False, axis="y" if sideways else "x")
        if legend:
            fig.legend(loc="outside lower left", ncols=2)


def numbers(value: Any, what: str, length: int) -> Floats:
    """(length,) with NaN for null. Raises Missing if it is anything but numbers and nulls."""
    items = _list(value, what, length)
    for item in items:
        if item is not None and (isinstance(item, bool) or not isinstance(item, int | float)):
            raise Missing(f"{what} holds {item!r}, which is no number")
    known = [finite(item) for item in items]
    return np.array([np.nan if item is None else item for item in known], dtype=np.float64)


def _list(value: Any, what: str, length: int | None = None) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise Missing(f"{what} is no list, or an empty one")
    if length is not None and len(value) != length:
        raise Missing(f"{what} has {len(value)} entries, not {length}")
    return value


def _series(entry: dict[str, Any]) -> list[dict[str, Any]]:
    many = _list(entry.get("series"), "'series'")
    if not all(isinstance(one, dict) for one in many):
        raise Missing("'series' holds something that is no object")
    return many


def _error(one: dict[str, Any], length: int) -> Floats | None:
    if one.get("error") is None:
        return None
    return np.abs(numbers(one["error"], "'error'", length))


def _check_some(values: Floats) -> None:
    if not np.isfinite(values).any():
        raise Missing("it holds no number")


def _legend_rows(many: list[dict[str, Any]]) -> int:
    return -(-len(many) // 2) if any(text(one, "name") for one in many) else 0


def _colours(values: Floats, unit: str) -> dict[str, Any]:
    """Per cent has its whole range, differences have white at 0, anything else its own range."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low < 0 < high:
        return {"cmap": "RdBu", "vmin": -max(-low, high), "vmax": max(-low, high)}
    if unit == "%" and low >= 0 and high <= 100:
        return {"cmap": "Blues", "vmin": 0, "vmax": 100}
    return {"cmap": "Blues", "vmin": low, "vmax": high if high > low else low + 1}


def _decimals(values: Floats, narrow: bool) -> int:
    """The same for all numbers of a picture: about three digits of the largest, two if narrow."""
    largest = float(np.nanmax(np.abs(values)))
    whole = int(np.floor(np.log10(largest))) if largest > 0 else 0
    return int(np.clip((1 if narrow else 2) - min(whole, 1 if narrow else 2), 0, 6))


def _write_cells(ax: Any, image: Any, values: Floats, decimals: int) -> None:
    for (i, j), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.55
        colour = "white" if dark else "#333333"
        ax.text(j, i, f"{value:.{decimals}f}", ha="center", va="center", fontsize=8, color=colour)


def _name_columns(ax: Any, names: list[str]) -> None:
    """Level if they fit beside each other, else slanted."""
    every = -(-len(names) // TICKS)
    shown = [short(name, 20) for name in names[::every]]
    turn = sum(len(name) + 1 for name in shown) > 80  # characters of this size across the picture
    angle = 0 if not turn else 35 if len(shown) <= UPRIGHT else 90
    look = {"ha": "right", "rotation_mode": "anchor"} if angle == 35 else {}
    ax.set_xticks(np.arange(0, len(names), every), shown, rotation=angle, **look)
