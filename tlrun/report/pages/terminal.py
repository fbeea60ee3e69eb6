"""The short table that `tlrun` prints at its end."""

from __future__ import annotations

from pathlib import Path

from tlrun.evaluate.figures import finite
from tlrun.report.figures.style import short
from tlrun.report.formats import NONE, number, with_interval
from tlrun.report.pages.leaderboard_files import first_table
from tlrun.report.read.run_record import RunRecord, read_record
from tlrun.report.statistics.findings import (
    comparison,
    failures,
    further,
    headline,
    selection_sentence,
    times,
)
from tlrun.report.statistics.leaderboard import Leaderboard

ROWS = 15  # of a leaderboard
CLASSES = 12  # with more, the hardest ones stand for all
TABLE = {"source_test/accuracy": "source test", "target_test/accuracy": "target test"}
FIGURES = 12  # of other kinds; the page has all of them


def text_summary(run_dir: Path) -> str:
    """At most 25 lines: source and target test before and after, by class or with whatever else
    was measured, and who chose the step.

    Raises ConfigError when `run_dir` is not a run folder.
    """
    record = read_record(Path(run_dir))
    lines = [_title(record), ""]
    if record.status.get("error"):
        lines += [str(record.status["error"]), ""]
    for sentence in failures(record):
        lines += [sentence, ""]
    if record.summary:
        seen = record.summary.get("target_labels_seen")
        lines += [*_figures(record), ""]
        last = (
            selection_sentence(record),
            f"Training saw {number(seen, 'count')} target labels." if seen else "",
            _other_rules(record),
            comparison(record),
            _times(record),
        )
        lines += [line for line in last if line]
    page = record.run.report
    lines.append(f"Report: {page}" if page.exists() else f"Run folder: {record.path}")
    return "\n".join(lines)


def sweep_table(board: Leaderboard, folder: Path) -> str:
    """The first table of a leaderboard that lies in `folder`: at most ROWS lines, and where all of
    it lies; "" without a job."""
    rows = first_table(board)
    if not rows:
        return ""
    head = [column for column, _ in rows[0]]
    shown = [head, *([str(cell) for _, cell in cells] for cells in rows[:ROWS])]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in shown]
    if len(rows) > ROWS:
        lines.append(f"(and {len(rows) - ROWS} more)")
    return "\n".join(
        [*lines, f"Leaderboard: {folder / 'leaderboard.md'}, {folder / 'report.html'}"]
    )


def _title(record: RunRecord) -> str:
    total, training = times(record).get("total"), finite(record.summary.get("train_seconds"))
    took = "" if training is None else f", {number(training, 'seconds')} of training"
    took = took if total is None else f" in {number(total, 'seconds')}"
    seed = "" if record.seed is None else f", seed {record.seed}"
    return f"{record.method} on {record.data}{seed}: {record.state}{took}"


def _times(record: RunRecord) -> str:
    parts = {name: value for name, value in times(record).items() if name != "total" and value}
    written = [f"{name} {number(value, 'seconds')}" for name, value in parts.items()]
    return f"Time: {', '.join(written)}." if written else ""


def _figures(record: RunRecord) -> list[str]:
    others = _further(record)
    common = [*_headline(record), *_accuracies(record, by_class=not others)]
    return [*common, *([""] if common and others else []), *others]


def _headline(record: RunRecord) -> list[str]:
    """A line for the task that was trained, where the table of accuracies does not hold it."""
    top = headline(record)
    if top is None or top.figure.key != record.headline or top.figure.key in TABLE:
        return []
    earlier = number(top.before, top.unit, sign=True)
    before = "" if top.before is None else f" (before {earlier}, {top.gain})"
    return [f"{top.label}: {top.text}{top.sign}{before}"]


def _accuracies(record: RunRecord, by_class: bool) -> list[str]:
    """Source and target test; [] if neither was measured and the run has other figures."""
    rows = [(TABLE[key], record.value(key, "before"), record.value(key)) for key in TABLE]
    if "source_test/accuracy" not in record.figures("selected"):  # there is no source
        rows = rows[1:]
    if not by_class:
        rows = [row for row in rows if row[2] is not None]
        if not rows:
            return []
    unmeasured = rows[-1][2] is None
    classes = record.accuracy_by_class if by_class else {}
    earlier = record.accuracy_by_class_before
    shown = list(classes)
    if len(classes) > CLASSES:
        shown = sorted(classes, key=lambda name: classes[name])[:CLASSES]
    rows += [(f"  {short(name, 20)}", earlier.get(name), classes[name]) for name in shown]
    width = max(len(name) for name, _, _ in rows)
    if any(value is not None for _, value, _ in rows):
        lines = [f"{'accuracy, %':<{width}}   before    after   points"]
        for name, old, new in rows:
            gain = None if old is None or new is None else new - old
            cells = (number(old, "share"), number(new, "share"), number(gain, "share", signed=True))
            lines.append(f"{name:<{width}} " + " ".join(f"{cell:>8}" for cell in cells))
    else:
        lines = [f"{'accuracy, %':<{width}}"]
        halves = {name: record.figure(key).ci95 for key, name in TABLE.items()}
        for name, _, new in rows:
            half = halves.get(name)
            interval = "" if half is None or new is None else f" ± {number(half, 'share')}"
            lines.append(f"{name:<{width}} {number(new, 'share'):>8}{interval}")
    if len(classes) > CLASSES:
        lines.append(f"  (the {CLASSES} hardest of {len(classes)} classes)")
    if unmeasured:
        lines.append(
            "Target test accuracy was not measured (no target test labels, or switched off)."
        )
    return lines


def _further(record: RunRecord) -> list[str]:
    """A line for each other figure, with that before adaptation in front if there is one."""
    after, before = (
        {f.key: with_interval(f.value, f.ci95, f.kind.unit) for f in further(record, rule)}
        for rule in ("selected", "before")
    )
    if not after:
        return []
    width = max(map(len, after))
    old = max((len(before.get(name, NONE)) for name in after if before), default=0)
    lines = ["figures (shares in %)" + (", before and after" if old else "")]
    for name in list(after)[:FIGURES]:
        first = f" {before.get(name, NONE):<{old}} " if old else ""
        lines.append(f"{name:<{width}} {first} {after[name]}")
    if len(after) > FIGURES:
        lines.append(f"  (and {len(after) - FIGURES} more in summary.json)")
    return lines


def _other_rules(record: RunRecord) -> str:
    key = record.headline
    parts = [
        f"{name} {number(value, record.kind(key).unit, sign=True)}"
        for name, rule in (("last step", "last"), ("oracle", "oracle"))
        if (value := record.value(key, rule)) is not None
    ]
    name = TABLE.get(key) or record.title(key)
    return f"For reference, {name} under other rules: {', '.join(parts)}." if parts else ""
