"""report.html of a run: one self-contained page, the result first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tlrun.errors import ConfigError
from tlrun.files.atomic import write_atomic
from tlrun.report.figures.plots import draw_plots, own_pictures
from tlrun.report.pages import render
from tlrun.report.pages.leaderboard import find_jobs, write_leaderboard
from tlrun.report.pages.tables import read_tables
from tlrun.report.read.record import (
    RULES,
    Record,
    Row,
    class_name,
    is_run,
    mapping,
    number,
    read_record,
)
from tlrun.report.statistics.findings import badges, failures, further, headline, sentences
from tlrun.report.statistics.regrets import regret_table

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


def write_report(path: Path, output: Path | None = None) -> Path:
    """(Re)write the report of a run, or the leaderboard of a sweep; returns the page's path.

    output: another folder for the page of a run. Raises ConfigError when `path` is neither.
    """
    path = Path(path)
    if is_run(path):
        return write_page(replace(read_record(path), output=output))
    if output is not None:
        raise ConfigError(f"{path} is no run; write its leaderboard with --compare {output}")
    if find_jobs(path):
        return write_leaderboard(path)
    raise ConfigError(
        f"{path} is neither a run folder (no config.yaml) nor a sweep folder (no run folder "
        "inside); give the folder that tlrun printed at its end."
    )


def write_page(record: Record) -> Path:
    drawn, missing = draw_plots(record)
    titles = TITLES | {own.name: (own.title, own.text) for own in own_pictures(record)}
    tables, left_out = read_tables(record.run.tables)
    left_out += [(titles[name][0], reason) for name, reason in missing.items()]
    data_rows, data_cards = _data(record.environment)
    html = render.render(
        "run.html",
        title=f"{record.method} on {record.data}",
        subtitle=_subtitle(record),
        trouble=_trouble(record),
        failures=failures(record),
        headline=headline(record),
        sentences=sentences(record),
        badges=badges(record.summary),
        table=_table(record),
        has_oracle=number(record.figures("oracle").get("target_test/accuracy")) is not None,
        further=further(record),
        plots=[
            {
                "path": drawn[name],
                "title": titles[name][0],
                "text": titles[name][1],
                "table": regret_table(record) if name == "regrets" else None,
            }
            for name in drawn
        ],
        tables=tables,
        left_out=left_out,
        mistakes=_mistakes(record),
        commands=_commands(record),
        overrides=record.overrides,
        config=_read(record.run.config),
        cost=_cost(record.summary),
        data_rows=data_rows,
        data_cards=data_cards,
        environment=_environment(record.environment),
    )
    record.page.path.mkdir(parents=True, exist_ok=True)
    write_atomic(record.page.report, html)
    return record.page.report


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
        "created": "The run had not started when this page was written.",
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
                {
                    "name": ROW_NAMES[rule],
                    "step": figures.get("step"),
                    "cells": cells,
                    "main": rule == "selected",
                }
            )
    return rows


def _mistakes(record: Record, limit: int = 10) -> list[Row]:
    table = record.predictions
    if table is None:
        return []
    wrong = np.flatnonzero(
        table.known & (table.label != table.prediction) & np.isfinite(table.confidence)
    )
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
    folder = str(record.path.resolve())
    lines = [
        {"what": "The same command, in a new folder:", "command": render.command(*record.overrides)}
    ]
    if record.state == "completed":
        lines.append(
            {
                "what": "The same run from its saved config, compared:",
                "command": render.command("reproduce", folder),
            }
        )
        lines.append(
            {
                "what": "Use the model:",
                "command": f"{render.command('predict', folder)} IMAGE_OR_FOLDER",
            }
        )
    else:
        lines.append(
            {"what": "Go on where it stopped:", "command": render.command("resume", folder)}
        )
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
    wall = {name: number(value) for name, value in mapping(summary.get("wall_seconds")).items()}
    whole = [
        (f"Time: {name}" if name != "total" else "Time of the command", render.duration(seconds))
        for name, seconds in wall.items()
        if seconds and name not in ("training", "report")  # the report is being written
    ]
    return whole + [
        (name, write(summary[key]))
        for name, (key, write) in shown.items()
        if number(summary.get(key)) is not None
    ]


def _data(environment: Row) -> tuple[list[list[str]], list[tuple[str, Row]]]:
    """(rows of role, examples, labels by class, checksum; the card of each domain)."""
    rows, cards = [], []
    for domain, card in mapping(mapping(environment.get("data")).get("domains")).items():
        for split, held in mapping(mapping(card).get("splits")).items():
            by_class = mapping(held.get("count_by_class")).values()
            labels = f"{min(by_class):,} to {max(by_class):,}" if by_class else render.NONE
            checksum = str(held.get("checksum", ""))[:12]
            rows.append([f"{domain} {split}", render.count(held.get("count")), labels, checksum])
        told = {key: value for key, value in mapping(card).items() if key != "splits" and value}
        cards.append((domain, told))
    return rows, cards


def _environment(environment: Row) -> list[tuple[str, str]]:
    return [
        (key.replace("_", " "), render.plain(value))
        for key, value in environment.items()
        if key != "data" and value is not None
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
