"""The pictures of a run folder: plots/*.png, without those it has no data for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrun.messages import plural
from tlrun.report.figures.curves import draw_curves
from tlrun.report.figures.embedding import draw_embedding
from tlrun.report.figures.pictures import Picture, read_pictures
from tlrun.report.figures.regrets import draw_regrets
from tlrun.report.figures.style import SOURCE, TARGET, figure, short
from tlrun.report.figures.validators import draw_validators
from tlrun.report.formats import command, number
from tlrun.report.read.entries import Missing
from tlrun.report.read.predictions import UNLABELLED
from tlrun.report.read.run_record import RunRecord

log = logging.getLogger(__name__)
UPRIGHT = 12  # more classes than this: the bars lie on their side
BARS = 40  # more classes than this: only those that changed most


def draw_plots(record: RunRecord, kind: str = "full") -> tuple[dict[str, Path], dict[str, str]]:
    """({name: file}, {name of a plot left out: why}). kind: "full", "light" (without those of SLOW)
    or "text" (none at all)."""
    drawn: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    draws: dict[str, Callable[[Path], None]]
    draws = {picture.name: picture.draw for picture in own_pictures(record)}  # its results first
    draws |= {name: partial(draw, record) for name, draw in PLOTS.items()}
    if PLOTS and record.newly_labelled:  # instead of what compares with labels
        draws["predicted"] = partial(draw_predicted, record)
        draws = {name: draw for name, draw in draws.items() if name not in OF_LABELS}
    for name in {"light": SLOW, "text": tuple(draws)}.get(kind, ()):
        if draws.pop(name, None):
            left_out[name] = (
                f"report={kind}; {command('report', str(record.path.resolve()))} draws it"
            )
    for name, draw in draws.items():
        path = record.page.plots / f"{name}.png"
        try:
            draw(path)
            drawn[name] = path
        except Missing as reason:
            left_out[name] = str(reason)
            path.unlink(missing_ok=True)  # an older report's picture would contradict this one
        except Exception as error:  # hours of training must not end as failed because of a picture
            log.warning(
                "plots/%s.png could not be drawn: %s: %s", name, type(error).__name__, error
            )
            left_out[name] = f"it could not be drawn ({type(error).__name__}: {error})"
    return drawn, left_out


def own_pictures(record: RunRecord) -> list[Picture]:
    """What the run asked for in its pictures.json."""
    return read_pictures(record.run.pictures, taken=PLOTS)


def confusion(record: RunRecord) -> NDArray[np.int64]:
    """(K, K) counts of target test images: row true class, column predicted. Raises Missing."""
    table = record.predictions
    if table is None:
        raise Missing("there are no predictions (predictions.csv)")
    if not table.labelled.any():
        raise Missing("the target test images have no labels")
    label, prediction = table.label[table.labelled], table.prediction[table.labelled]
    size = max(len(record.classes), int(label.max()) + 1, int(prediction.max()) + 1)
    return np.bincount(label * size + prediction, minlength=size * size).reshape(size, size)


def draw_predicted(record: RunRecord, path: Path) -> None:
    """How often each class is predicted where nobody knows the classes."""
    table = record.predictions
    assert table is not None
    guesses = table.prediction[table.prediction != UNLABELLED]
    counts = np.bincount(guesses, minlength=len(record.classes))
    order = np.arange(len(counts))
    if len(counts) > BARS:
        order = np.argsort(-counts, kind="stable")[:BARS]
    names = [short(record.class_name(int(k))) for k in order]
    sideways = len(order) > UPRIGHT
    with figure(path, max(3.4, 0.8 + 0.24 * len(order)) if sideways else 3.4) as (_, axes):
        ax = axes[0, 0]
        if sideways:
            ax.barh(np.arange(len(order)), counts[order], height=0.6, color=TARGET)
        else:
            bars = ax.bar(np.arange(len(order)), counts[order], width=0.6, color=TARGET)
            ax.bar_label(bars, fmt="{:,.0f}", fontsize=8, padding=1)
        _name_bars(ax, names, sideways, "target test images", None)
        ax.set_title(_predicted_title(record, counts, len(order)))


def _predicted_title(record: RunRecord, counts: NDArray[np.int64], shown: int) -> str:
    most = int(counts.argmax())
    share = number(float(counts[most] / counts.sum()), "share", sign=True)
    title = (
        f"{int((counts > 0).sum()):,} of {len(counts):,} classes are predicted, most often "
        f"“{short(record.class_name(most), 24)}” ({share})."
    )
    return title + (f"\nShown are the {shown} most frequent ones." if shown < len(counts) else "")


def draw_confusion(record: RunRecord, path: Path) -> None:
    counts = confusion(record)
    size = len(counts)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    every = int(np.ceil(size / 40))  # the names of more would overlap
    ticks = np.arange(0, size, every)
    names = [short(record.class_name(int(k))) for k in ticks]
    longest = max(len(short(record.class_name(k))) for k in range(size))
    with figure(path, 6.8) as (fig, axes):
        ax = axes[0, 0]
        image = ax.imshow(share, cmap="Blues", vmin=0, vmax=100)
        ax.set_xticks(ticks, names, rotation=90 if longest > 2 else 0)
        ax.set_yticks(ticks, names)
        if every > 1 or size > 20:
            ax.tick_params(labelsize=7)
        title = _confusion_title(record, counts)
        ax.set(xlabel="predicted class", ylabel="true class", title=title)
        ax.grid(False)
        if size <= 20:
            for (i, j), value in np.ndenumerate(share):
                if counts[i, j]:
                    text = f"{value:.0f}" if value >= 0.5 else "<1"
                    colour = "white" if value > 55 else "#333333"
                    look = {"ha": "center", "va": "center", "fontsize": 8, "color": colour}
                    ax.text(j, i, text, **look, in_layout=False)  # it lies in its square
        fig.colorbar(image, ax=ax, label="% of the images of the true class", shrink=0.7)


def draw_by_class(record: RunRecord, path: Path) -> None:
    after, before = record.accuracy_by_class, record.accuracy_by_class_before
    if not after:
        raise Missing(
            "there are no predictions (predictions.csv)"
            if record.predictions is None
            else "the target test images have no labels"
        )
    gain = {name: after[name] - before[name] for name in after if name in before}
    names = list(after)
    if len(names) > BARS:
        ranked = sorted(names, key=lambda name: gain.get(name, after[name]))
        names = ranked[: BARS // 2] + ranked[-BARS // 2 :]
    sideways = len(names) > UPRIGHT
    with figure(path, max(3.4, 0.8 + 0.24 * len(names)) if sideways else 3.4) as (fig, axes):
        ax = axes[0, 0]
        bars, thick = (ax.barh, "height") if sideways else (ax.bar, "width")
        place = np.arange(len(names))
        if gain:
            earlier = [100 * before.get(name, 0.0) for name in names]
            look = {"color": "#c9c9c9", "edgecolor": "#8a8a8a", "lw": 0.6}
            bars(place - 0.2, earlier, **{thick: 0.38}, **look, label="before adaptation")
        drawn = bars(
            place + (0.2 if gain else 0.0),
            [100 * after[name] for name in names],
            **{thick: 0.38 if gain else 0.6},
            color=TARGET if gain else SOURCE,
            label="after adaptation" if gain else "target test accuracy",
        )
        if not sideways:
            ax.bar_label(drawn, fmt="%.0f", fontsize=8, padding=1)
        _name_bars(ax, [short(name) for name in names], sideways, "target test accuracy, %", 100)
        ax.set_title(_by_class_title(after, gain, shown=len(names)))
        if gain:
            fig.legend(loc="outside lower center", ncols=2)


def _name_bars(ax: Any, names: list[str], sideways: bool, label: str, whole: float | None) -> None:
    """whole: where the axis of the values ends, a little beyond; None = at the longest bar."""
    if sideways:
        ax.set_yticks(range(len(names)), names, fontsize=8)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set(xlabel=label, xlim=(0, whole and 1.05 * whole))
        ax.grid(False, axis="y")
        return
    turn = {"rotation": 35, "ha": "right"} if max(map(len, names)) > 6 else {"ha": "center"}
    ax.set_xticks(range(len(names)), names, **turn)
    ax.set(ylabel=label, ylim=(0, whole and 1.08 * whole))
    if whole is None:
        ax.margins(y=0.1)  # room for the numbers
    ax.grid(False, axis="x")


def _confusion_title(record: RunRecord, counts: NDArray[np.int64]) -> str:
    right = number(float(counts.trace() / counts.sum()), "share", sign=True)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    if not wrong.any():
        return f"All {counts.sum():,} target test images are classified correctly."
    i, j = np.unravel_index(wrong.argmax(), wrong.shape)
    true, taken = (short(record.class_name(int(k)), 24) for k in (i, j))
    return (
        f"{right} of {counts.sum():,} target test images are right;\n"
        f"the most frequent error takes “{true}” for “{taken}” "
        f"({plural(int(wrong[i, j]), 'time')})."
    )


def _by_class_title(after: dict[str, float], gain: dict[str, float], shown: int) -> str:
    part = (
        f"\nShown are the {shown} of {len(after)} classes at both ends."
        if shown < len(after)
        else ""
    )
    if not gain:
        worst = min(after, key=lambda name: after[name])
        percent = number(after[worst], "share", sign=True)
        return f"The hardest class is “{short(worst, 24)}” ({percent}).{part}"
    better = sum(value > 0 for value in gain.values())
    if not better:
        return f"Adaptation improves no class.{part}"
    best = max(gain, key=lambda name: gain[name])
    return (
        f"Adaptation improves {better} of {len(gain)} classes, most of all “{short(best, 24)}” "
        f"({100 * gain[best]:+.0f} points).{part}"
    )


OF_LABELS = ("confusion", "by_class", "regrets", "validators")  # and say nothing without any
SLOW = ("embedding", "regrets", "validators")  # seconds for what a sweep's job is not opened for
PLOTS: dict[str, Callable[[RunRecord, Path], None]] = {
    "curves": draw_curves,
    "embedding": draw_embedding,
    "confusion": draw_confusion,
    "by_class": draw_by_class,
    "regrets": draw_regrets,
    "validators": draw_validators,
}
