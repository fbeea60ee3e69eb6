"""report.html of a run: one self-contained page, the result first. `write_report` takes runs and sweeps alike."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from tlrun.errors import ConfigError
from tlrun.report import render
from tlrun.report.leaderboard import find_jobs, write_leaderboard
from tlrun.report.plots import draw_plots
from tlrun.report.record import RULES, Record, Row, class_name, is_run, number, read_record, write_text

SPLITS = ("source_test", "target_test")
METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
ROW_NAMES = {
    "before": "Before adaptation",
    "selected": "Selected",
    "last": "Last",
    "oracle": "Oracle (saw target labels)",
}
TITLES = {
    "curves": (
        "Curves",
        "What was logged over training; the dashed line marks the selected step. Losses are smoothed over 1/40 of the log.",
    ),
    "embedding": (
        "Source and target in feature space",
        "A t-SNE map shows who is near whom; distances between groups mean nothing. The share of neighbours is measured "
        "in the feature space itself.",
    ),
    "confusion": ("Confusion on the target", "Each row adds up to 100 % of the images of that class."),
    "by_class": ("Accuracy by class", "On the target test images, with the selected checkpoint."),
    "validators": (
        "Could the validators be trusted?",
        "Each validator beside target test accuracy at every evaluation. This looks at target test labels, after the fact.",
    ),
}


def write_report(path: Path) -> Path:
    """(Re)write the report of a run folder, or the leaderboard of a sweep folder; returns the page's path.

    Raises ConfigError when `path` is neither.
    """
    path = Path(path)
    if is_run(path):
        return write_page(read_record(path))
    if find_jobs(path):
        return write_leaderboard(path)
    raise ConfigError(
        f"{path} is neither a run folder (no config.yaml) nor a sweep folder (no run folder inside); "
        "give the folder that tlrun printed at its end."
    )


def write_page(record: Record) -> Path:
    drawn, left_out = draw_plots(record)
    environment, data_table = _environment(record.environment)
    html = render.render(
        "run.html",
        title=f"{record.method} on {record.data}",
        subtitle=_subtitle(record),
        trouble=_trouble(record),
        headline=headline(record),
        sentences=sentences(record),
        badges=badges(record.summary),
        table=_table(record),
        has_oracle=bool(record.figures("oracle")),
        further=_further(record),
        plots=[{"path": drawn[name], "title": TITLES[name][0], "text": TITLES[name][1]} for name in drawn],
        left_out=[(TITLES[name][0], reason) for name, reason in left_out.items()],
        mistakes=_mistakes(record),
        commands=_commands(record),
        overrides=record.overrides,
        config=_read(record.run.config),
        cost=_cost(record.summary),
        data_table=data_table,
        environment=environment,
    )
    return write_text(record.run.report, html)


def headline(record: Record) -> dict[str, Any] | None:
    """The one figure to read: target test accuracy of the selected step, else the source's; None without any."""
    chosen = record.figures("selected")
    for split, label in (("target_test", "Target test accuracy"), ("source_test", "Source test accuracy")):
        value = number(chosen.get(f"{split}/accuracy"))
        if value is not None:
            before = number(record.figures("before").get(f"{split}/accuracy"))
            gain = None if before is None else value - before
            return {"label": label, "split": split, "value": value, "before": before, "gain": render.points(gain)}
    return None


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
    if value is None:
        found.append("Target test accuracy was not measured: there were no target test labels, or it was switched off.")
    if number(chosen.get("step")) is not None:
        found.append(selection_sentence(summary))
    oracle, last = (number(record.figures(rule).get("target_test/accuracy")) for rule in ("oracle", "last"))
    if value is not None and last is not None:
        best = "" if oracle is None else f", the best one by target labels (oracle) {render.percent(oracle)} %"
        found.append(f"The last step has {render.percent(last)} %{best}.")
    return found


def selection_sentence(summary: Row) -> str:
    """Which rule chose which step, and whether it saw target labels."""
    chosen, rule = summary["selected"], str(summary.get("selection_rule") or "last")
    of = f" of {render.count(summary.get('steps'))}" if number(summary.get("steps")) is not None else ""
    saw = "it saw target labels" if summary.get("selection_saw_target_labels") else "it saw no target label"
    return f"The rule {rule} selected step {render.count(chosen.get('step'))}{of}; {saw}."


def badges(summary: Row) -> list[dict[str, str]]:
    """What target labels were seen: a warning each, or one plain assurance."""
    if not summary:
        return []
    found = []
    if summary.get("selection_saw_target_labels"):
        found.append({"kind": "warn", "text": "Selection saw target labels: this figure is too good"})
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


def _subtitle(record: Record) -> str:
    parts = [
        record.summary.get("backbone"),
        None if record.seed is None else f"seed {record.seed}",
        record.state,
        str(record.path.resolve()),
    ]
    return " · ".join(str(part) for part in parts if part)


def _trouble(record: Record) -> dict[str, str] | None:
    titles = {
        "failed": "The run failed.",
        "interrupted": "The run was interrupted; `tlrun resume` goes on where it stopped.",
        "running": "The run had not ended when this page was written.",
    }
    if record.state not in titles:
        return None
    step = number(record.status.get("step"))
    where = "" if step is None else f" Step {render.count(step)}."
    return {"title": titles[record.state] + where, "error": str(record.status.get("error") or "")}


def _table(record: Record) -> list[Row]:
    rows = []
    for rule in ("before", *RULES):
        figures = record.figures(rule)
        cells = [number(figures.get(f"{split}/{metric}")) for split in SPLITS for metric in METRICS]
        if any(cell is not None for cell in cells):
            rows.append(
                {"name": ROW_NAMES[rule], "step": figures.get("step"), "cells": cells, "main": rule == "selected"}
            )
    return rows


def _further(record: Record) -> list[tuple[str, str]]:
    """Whatever else a method's evaluators left under `selected` (per task, seen and unseen classes, few-shot ...)."""
    known = {"step", *(f"{split}/{metric}" for split in SPLITS for metric in METRICS)}
    chosen = {k: number(v) for k, v in record.figures("selected").items() if k not in known}
    return [(name, f"{value:.4g}") for name, value in chosen.items() if value is not None]


def _mistakes(record: Record, limit: int = 10) -> list[Row]:
    table = record.predictions
    if table is None:
        return []
    wrong = np.flatnonzero(table.known & (table.label != table.prediction) & np.isfinite(table.confidence))
    return [
        {
            "image": table.path[i] or f"number {table.index[i]}",
            "label": class_name(record, int(table.label[i])),
            "prediction": class_name(record, int(table.prediction[i])),
            "confidence": float(table.confidence[i]),
        }
        for i in wrong[np.argsort(-table.confidence[wrong], kind="stable")][:limit]
    ]


def _commands(record: Record) -> list[dict[str, str]]:
    folder = str(record.path)
    lines = [{"what": "The same command, in a new folder:", "command": render.command(*record.overrides)}]
    if record.state == "completed":
        lines.append(
            {"what": "The same run from its saved config, compared:", "command": render.command("reproduce", folder)}
        )
        lines.append(
            {"what": "Use the model:", "command": f"{render.command('predict', folder)} IMAGE_OR_FOLDER"}
        )
    else:
        lines.append({"what": "Go on where it stopped:", "command": render.command("resume", folder)})
    return lines


def _cost(summary: Row) -> list[tuple[str, str]]:
    shown = {
        "Training time": ("train_seconds", render.duration),
        "Steps": ("steps", render.count),
        "Optimizer updates": ("updates", render.count),
        "Images seen": ("images_seen", render.count),
        "Images per second": ("images_per_second", render.count),
        "Peak memory, MB": ("peak_memory_mb", render.count),
    }
    return [(name, write(summary[key])) for name, (key, write) in shown.items() if number(summary.get(key)) is not None]


def _environment(environment: Row) -> tuple[list[tuple[str, str]], Row | None]:
    """(flat rows of everything but the data, table of the data by role)."""
    rows: list[tuple[str, str]] = []
    roles: Row = {}
    for key, value in environment.items():
        if key == "data" and isinstance(value, dict):
            roles = {role: card for role, card in value.items() if isinstance(card, dict)}
            value = {name: item for name, item in value.items() if name not in roles} or None
        if value is not None:
            rows.append((key.replace("_", " "), render.plain(value)))
    if not roles:
        return rows, None
    columns = list(dict.fromkeys(name for card in roles.values() for name in card))
    table = [(role, [_cell(name, card.get(name)) for name in columns]) for role, card in roles.items()]
    return rows, {"columns": columns, "rows": table}


def _cell(name: str, value: Any) -> str:
    if isinstance(value, dict) and len(value) > 4:  # e.g. the count of each of 345 classes
        return f"{len(value)} entries"
    if name in ("checksum", "sha256", "md5") and isinstance(value, str):
        return value[:12]
    return render.count(value) if isinstance(value, int) and not isinstance(value, bool) else render.plain(value)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
