"""What a run found, in figures and sentences: for the page and the terminal."""

from __future__ import annotations

import math
from typing import Any

from tlrun.report import render
from tlrun.report.groups import metric_name
from tlrun.report.record import Record, Row, number

TESTS = {
    "target_test/accuracy": "Target test accuracy",
    "source_test/accuracy": "Source test accuracy",
}
COMMON = {  # what the page and the text show in tables of their own
    f"{split}_test/{metric}"
    for split in ("source", "target")
    for metric in ("accuracy", "balanced_accuracy", "macro_f1")
}
# How the names of shares in [0, 1] end; other figures have a unit of their own.
SHARES = ("accuracy", "iou", "f1", "harmonic_mean", "delta_m", "seen", "unseen")


def headline(record: Record) -> dict[str, Any] | None:
    """The one figure to read: target test accuracy of the selected step, else the source's.

    Without either, the first share that the evaluators left.
    """
    chosen, earlier = record.figures("selected"), record.figures("before")
    others = [
        key
        for key in further(record)
        if key.endswith(SHARES) and "_val/" not in key and not key.endswith("delta_m")
    ]  # a difference says little alone
    for key, label in (TESTS | {key: metric_name(key).capitalize() for key in others}).items():
        value = number(chosen.get(key))
        if value is not None:
            before = number(earlier.get(key))
            gain = None if before is None else value - before
            return {"label": label, "value": value, "before": before, "gain": render.points(gain)}
    return None


def further(record: Record, rule: str = "selected") -> dict[str, str]:
    """What else the evaluators left, written: {"few_shot/5way_1shot/accuracy": "48.3 ± 0.6"}.

    Shares are in per cent. The interval follows its figure: that of `a/iou` is `a/iou_ci95`, that
    of `a/accuracy` also `a/ci95` or `a_ci95`.
    """
    figures = record.figures(rule)
    shown = {}
    for key, value in figures.items():
        if number(value) is None or key in COMMON or key == "step" or key.endswith("ci95"):
            continue
        place, _, name = key.rpartition("accuracy")
        intervals = [f"{key}_ci95"]
        if not name and place[-1:] in ("", "/"):
            intervals += [f"{place}ci95", f"{place[:-1]}_ci95"]
        half = next((v for k in intervals if (v := number(figures.get(k))) is not None), None)
        shown[key] = " ± ".join(_written(key, v) for v in (value, half) if v is not None)
    return shown


def _written(key: str, value: float) -> str:
    return render.percent(value) if key.endswith(SHARES) else f"{value:.4g}"


def sentences(record: Record) -> list[str]:
    """What stands behind the headline: images, interval, the rule, the oracle."""
    summary, chosen = record.summary, record.figures("selected")
    if not summary:
        return ["There is no summary.json: this run has no result."]
    found = []
    value = number(chosen.get("target_test/accuracy"))
    images = int(record.predictions.known.sum()) if record.predictions is not None else 0
    if value is not None and images:
        low, high = wilson(value, images)
        found.append(
            f"Measured on {images:,} target test images; their number alone allows "
            f"{render.percent(low)} to {render.percent(high)} % (95 % Wilson interval)."
        )
    if value is None and not further(record):
        found.append(
            "Target test accuracy was not measured: there were no target test labels, or it was "
            "switched off."
        )
    if number(chosen.get("step")) is not None:
        found.append(selection_sentence(summary))
    oracle, last = (
        number(record.figures(rule).get("target_test/accuracy")) for rule in ("oracle", "last")
    )
    if value is not None and last is not None:
        best = (
            ""
            if oracle is None
            else f", the best one by target labels (oracle) {render.percent(oracle)} %"
        )
        found.append(f"The last step has {render.percent(last)} %{best}.")
    return found


def selection_sentence(summary: Row) -> str:
    """Which rule chose which step, and whether it saw target labels."""
    chosen, rule = summary["selected"], str(summary.get("selection_rule") or "last")
    of = (
        f" of {render.count(summary.get('steps'))}"
        if number(summary.get("steps")) is not None
        else ""
    )
    saw = (
        "it saw target labels"
        if summary.get("selection_saw_target_labels")
        else "it saw no target label"
    )
    if summary.get("selection_fell_back"):
        step = render.count(chosen.get("step"))
        return (
            f"No evaluation passed the guard of {rule}: the last, step {step}{of}, stands for it."
        )
    return f"The rule {rule} selected step {render.count(chosen.get('step'))}{of}; {saw}."


def badges(summary: Row) -> list[dict[str, str]]:
    """What target labels were seen: a warning each, or one plain assurance."""
    if not summary:
        return []
    found = []
    if summary.get("selection_saw_target_labels"):
        found.append(
            {"kind": "warn", "text": "Selection saw target labels: this figure is optimistic"}
        )
    seen = number(summary.get("target_labels_seen"))
    if seen:
        found.append({"kind": "warn", "text": f"Training saw {render.count(seen)} target labels"})
    if not found and seen is not None:
        found.append({"kind": "good", "text": "No target label was seen in training or selection"})
    return found


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson, 1927); n > 0."""
    z = 1.959964
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
