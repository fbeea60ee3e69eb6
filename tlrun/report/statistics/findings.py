"""What a run found, in figures and sentences: for the page and the terminal."""

from __future__ import annotations

import math
from typing import Any

from tlrun.evaluate.figures import with_unit
from tlrun.report.pages import render
from tlrun.report.read.record import Record, Row, mapping, number

COMMON = {  # what the page and the text show in tables of their own
    f"{split}_test/{metric}"
    for split in ("source", "target")
    for metric in ("accuracy", "balanced_accuracy", "macro_f1")
}


def headline(record: Record) -> dict[str, Any] | None:
    """The one figure to read: of the task that was trained (selected step), else the source's.

    Without either, the first share or IoU that the evaluators left. value, before: texts with their
    unit; width: how far a bar reaches, in per cent of its length.
    """
    chosen, earlier = record.figures("selected"), record.figures("before")
    others = [
        key
        for key in further(record)
        if record.kind(key).unit in ("share", "IoU")
        and "_val/" not in key
        and key != "delta_m"  # a difference says little alone
    ]
    for key in dict.fromkeys([record.headline, "source_test/accuracy", *others]):
        value = number(chosen.get(key))
        if value is None:
            continue
        before, half, unit = number(earlier.get(key)), record.interval(key), record.kind(key).unit
        return {
            "key": key,
            "label": sentence_case(record.title(key)),
            "value": render.written(value, unit)
            + ("" if half is None else f" ± {render.written(half, unit)}"),
            "sign": "%" if unit == "share" else "",
            "before": None if before is None else with_unit(before, unit),
            "after": with_unit(value, unit),
            "gain": None
            if before is None
            else render.difference(value - before, unit) + render.in_points(unit),
            "width": 100 * value,
            "width_before": None if before is None else 100 * before,
        }
    return None


def sentence_case(text: str) -> str:
    """'target test mean IoU' -> 'Target test mean IoU'."""
    return text[:1].upper() + text[1:]


def further(record: Record, rule: str = "selected") -> dict[str, str]:
    """What else the evaluators left, written: {"few_shot/5way_1shot/accuracy": "48.3 ± 0.6"}.

    Each in its own unit, shares in per cent, with its interval behind it.
    """
    figures = record.figures(rule)
    shown = {}
    for key, value in figures.items():
        if number(value) is None or key in COMMON or key == "step" or key.endswith("ci95"):
            continue
        half, unit = record.interval(key, rule), record.kind(key).unit
        shown[key] = " ± ".join(render.written(v, unit) for v in (value, half) if v is not None)
    return shown


def failures(record: Record) -> list[str]:
    """Whether the training failed, and that of the model it is compared with: a sentence each."""
    found = [record.training_failure.why] if record.training_failure else []
    if record.baseline is not None and record.baseline.training_failure:
        why = record.baseline.training_failure.why
        found.append(f"For comparison, {record.baseline.method}: {why}")
    return found


def sentences(record: Record) -> list[str]:
    """What stands behind the headline: images, interval, the rule, the oracle."""
    summary, chosen = record.summary, record.figures("selected")
    if not summary:
        return ["There is no summary.json: this run has no result."]
    found = []
    key = record.headline
    value, unit = number(chosen.get(key)), record.kind(key).unit
    images = int(record.predictions.known.sum()) if record.predictions is not None else 0
    if value is not None and images and key == "target_test/accuracy":
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
    oracle, last = (number(record.figures(rule).get(key)) for rule in ("oracle", "last"))
    if value is not None and last is not None:
        best = (
            ""
            if oracle is None
            else f", the best one by target labels (oracle) {with_unit(oracle, unit)}"
        )
        found.append(f"The last step has {with_unit(last, unit)}{best}.")
    if beside := comparison(record):
        found.append(beside)
    return found


def times(record: Record) -> dict[str, float]:
    """Seconds of the whole command and of its parts, the total first; {} of older runs."""
    told = mapping(record.summary.get("wall_seconds"))
    return {name: seconds for name, value in told.items() if (seconds := number(value)) is not None}


def comparison(record: Record) -> str:
    """What is equal between the run and the model it is compared with, and what is not."""
    own, other = record.summary, record.baseline.summary if record.baseline else {}
    given = [number(s.get(key)) for s in (own, other) for key in ("steps", "images_seen")]
    if record.baseline is None or None in given:
        return ""
    steps, images, its_steps, its_images = map(render.count, given)
    as_many = f"as many steps ({steps})" if steps == its_steps else f"{its_steps} steps ({steps})"
    and_images = "as many images" if images == its_images else f"{its_images} images ({images})"
    joined = "and" if (steps == its_steps) == (images == its_images) else "but"
    name = record.baseline.method
    return f"The {name} model beside it took {as_many} {joined} saw {and_images}."


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
        why = summary.get("selection_why_last") or f"no evaluation passed the guard of {rule}"
        return f"The last step, {step}{of}, stands for the choice of {rule}: {why}."
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
