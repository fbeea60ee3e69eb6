"""report.html of a run: one self-contained page, the result first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tlrun.evaluate.figures import finite
from tlrun.report.figures.plots import draw_plots, own_pictures
from tlrun.report.formats import NONE, Shown, command, number, plain
from tlrun.report.pages.render import render
from tlrun.report.read.own_images import read_images
from tlrun.report.read.own_tables import read_tables
from tlrun.report.read.rows import Row
from tlrun.report.read.run_record import RunRecord, mapping
from tlrun.report.statistics.findings import (
    METRICS,
    SPLITS,
    badges,
    failures,
    further,
    headline,
    sentences,
    times,
)
from tlrun.report.statistics.regrets import regret_table

ROW_NAMES = {
    "before": "Before adaptation",
    "selected": "Selected",
    "last": "Last",
    "oracle": "Oracle (saw target labels)",
}
TITLES = {
    "curves": (
        "Curves",
        "What was logged over training; the dashed line marks the selected step. Losses are "
        "smoothed over 1/40 of the log.",
    ),
    "embedding": (
        "Source and target in feature space",
        "A t-SNE map shows who is near whom; distances between groups mean nothing. The share of "
        "neighbours is measured in the feature space itself.",
    ),
    "confusion": (
        "Confusion on the target",
        "Each row adds up to 100 % of the images of that class.",
    ),
    "predicted": (
        "What was predicted",
        "How many target test images were given each class, with the selected checkpoint. A class "
        "that takes most of them, or many that get none, says that the net collapsed.",
    ),
    "by_class": ("Accuracy by class", "On the target test images, with the selected checkpoint."),
    "regrets": (
        "What would each rule have chosen?",
        "Every validator over the steps, behind the guard against collapse, and what target test "
        "accuracy is at its choice; in brackets, points below the oracle. Where the guard leaves "
        "no row the last one is chosen. Spearman: rank correlation with target test accuracy. This "
        "looks at target test labels, after the fact: it says which rules to trust in "
        "other runs, and a rule picked by it gives no result in this one.",
    ),
    "validators": (
        "Could the validators be trusted?",
        "Each validator beside target test accuracy at every evaluation. This looks at target test "
        "labels, after the fact.",
    ),
}

DIAGNOSTICS = ("regrets", "validators")  # about selection rules, not about this model: last


def run_html(record: RunRecord, kind: str = "full") -> str:
    """The page; its pictures are drawn into the run folder, as many as `kind` says (draw_plots)."""
    drawn, missing = draw_plots(record, kind)
    titles = TITLES | {
        picture.name: (picture.title, picture.text) for picture in own_pictures(record)
    }
    tables, left_out = read_tables(record.run.tables)
    images, without = read_images(record.run.images)
    left_out += without
    left_out += [(titles[name][0], reason) for name, reason in missing.items()]
    data_rows, data_cards = _data(record.environment)

    def plot(name: str) -> Row:
        title, said = titles[name]
        table = regret_table(record) if name == "regrets" else None
        return {"path": drawn[name], "title": title, "text": said, "table": table}

    return render(
        "run.html",
        title=f"{record.method} on {record.data}",
        subtitle=_subtitle(record),
        trouble=_trouble(record),
        failures=failures(record),
        headline=headline(record),
        sentences=sentences(record),
        badges=badges(record.summary),
        table=_table(record),
        has_oracle=record.value("target_test/accuracy", "oracle") is not None,
        further=further(record),
        plots=[plot(name) for name in drawn if name not in DIAGNOSTICS],
        diagnostics=[plot(name) for name in drawn if name in DIAGNOSTICS],
        tables=tables,
        images=images,
        left_out=left_out,
        mistakes=_mistakes(record),
        commands=_commands(record),
        overrides=record.overrides,
        config=_read(record.run.config),
        cost=_cost(record),
        data_rows=data_rows,
        data_cards=data_cards,
        environment=[
            (key.replace("_", " "), plain(value))
            for key, value in record.environment.items()
            if key != "data" and value is not None
        ],
    )


def _subtitle(record: RunRecord) -> str:
    parts = [
        record.summary.get("backbone"),
        None if record.seed is None else f"seed {record.seed}",
        record.state,
        str(record.path.resolve()),
    ]
    return " · ".join(str(part) for part in parts if part)


def _trouble(record: RunRecord) -> dict[str, str] | None:
    titles = {
        "failed": "The run failed.",
        "interrupted": "The run was interrupted; `tlrun resume` goes on where it stopped.",
        "created": "The run had not started when this page was written.",
        "running": "The run had not ended when this page was written.",
    }
    if record.state not in titles:
        return None
    step = finite(record.status.get("step"))
    where = "" if step is None else f" Step {number(step, 'count')}."
    return {"title": titles[record.state] + where, "error": str(record.status.get("error") or "")}


def _table(record: RunRecord) -> list[Row]:
    rows = []
    for rule, name in ROW_NAMES.items():
        cells = [record.value(f"{split}/{metric}", rule) for split in SPLITS for metric in METRICS]
        if any(cell is not None for cell in cells):
            step = record.figures(rule).get("step")
            rows.append({"name": name, "step": step, "cells": cells, "main": rule == "selected"})
    return rows


def _mistakes(record: RunRecord, limit: int = 10) -> list[Row]:
    table = record.predictions
    if table is None:
        return []
    wrong = np.flatnonzero(
        table.labelled & (table.label != table.prediction) & np.isfinite(table.confidence)
    )
    return [
        {
            "image": table.path[i] or f"number {table.index[i]}",
            "label": record.class_name(int(table.label[i])),
            "prediction": record.class_name(int(table.prediction[i])),
            "confidence": float(table.confidence[i]),
        }
        for i in wrong[np.argsort(-table.confidence[wrong], kind="stable")][:limit]
    ]


def _commands(record: RunRecord) -> list[tuple[str, str]]:
    """(what for, the command)."""
    folder = str(record.path.resolve())
    again = ("The same command, in a new folder:", command(*record.overrides))
    if record.state != "completed":
        return [again, ("Go on where it stopped:", command("resume", folder))]
    return [
        again,
        ("The same run from its saved config, compared:", command("reproduce", folder)),
        ("Use the model:", f"{command('predict', folder)} IMAGE_OR_FOLDER"),
    ]


def _cost(record: RunRecord) -> list[tuple[str, str]]:
    whole = [
        (
            "Time of the command" if name == "total" else f"Time: {name}",
            number(seconds, "seconds"),
        )
        for name, seconds in times(record).items()
        if seconds and name not in ("training", "report")  # the report is being written
    ]
    shown: dict[str, tuple[str, Shown]] = {
        "Training time": ("train_seconds", "seconds"),
        "Steps": ("steps", "count"),
        "Optimizer updates": ("updates", "count"),
        "Images seen": ("images_seen", "count"),
        "Images per second": ("images_per_second", "count"),
        "Peak memory, MB": ("peak_memory_mb", "count"),
    }
    return whole + [
        (name, number(record.summary[key], unit))
        for name, (key, unit) in shown.items()
        if finite(record.summary.get(key)) is not None
    ]


def _data(environment: Row) -> tuple[list[list[str]], list[tuple[str, Row]]]:
    """(rows of role, examples, labels by class, checksum; the card of each domain)."""
    rows, cards = [], []
    for domain, card in mapping(mapping(environment.get("data")).get("domains")).items():
        for split, held in mapping(mapping(card).get("splits")).items():
            by_class = mapping(held.get("count_by_class")).values()
            labels = f"{min(by_class):,} to {max(by_class):,}" if by_class else NONE
            checksum = str(held.get("checksum", ""))[:12]
            rows.append([f"{domain} {split}", number(held.get("count"), "count"), labels, checksum])
        described = {
            key: value for key, value in mapping(card).items() if key != "splits" and value
        }
        cards.append((domain, described))
    return rows, cards


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
