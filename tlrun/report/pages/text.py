"""The short table that `tlrun` prints at its end."""

from __future__ import annotations

from pathlib import Path

from tlrun.evaluate.figures import with_unit
from tlrun.report.figures.style import short
from tlrun.report.pages.render import NONE, count, duration, percent, points
from tlrun.report.read.record import (
    Record,
    accuracy_by_class,
    accuracy_by_class_before,
    number,
    read_record,
)
from tlrun.report.statistics.findings import (
    comparison,
    failures,
    further,
    headline,
    selection_sentence,
    times,
)

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
        lines += [*_figures(record), ""]
        if number(record.figures("selected").get("step")) is not None:
            lines.append(selection_sentence(record.summary))
        if record.summary.get("target_labels_seen"):
            lines.append(
                f"Training saw {count(record.summary['target_labels_seen'])} target labels."
            )
        lines += _others(record)
        lines += [line for line in (comparison(record), _spent(record)) if line]
    page = record.run.report
    lines.append(f"Report: {page}" if page.exists() else f"Run folder: {record.path}")
    return "\n".join(lines)


def _title(record: Record) -> str:
    total, training = times(record).get("total"), number(record.summary.get("train_seconds"))
    took = "" if training is None else f", {duration(training)} of training"
    took = took if total is None else f" in {duration(total)}"
    seed = "" if record.seed is None else f", seed {record.seed}"
    return f"{record.method} on {record.data}{seed}: {record.state}{took}"


def _spent(record: Record) -> str:
    parts = {name: value for name, value in times(record).items() if name != "total" and value}
    told = [f"{name} {duration(value)}" for name, value in parts.items()]
    return f"Time: {', '.join(told)}." if told else ""


def _figures(record: Record) -> list[str]:
    others = _further(record)
    common = [*_headline(record), *_accuracies(record, by_class=not others)]
    return [*common, *([""] if common and others else []), *others]


def _headline(record: Record) -> list[str]:
    """A line for the task that was trained, where the table of accuracies does not hold it."""
    found = headline(record)
    if found is None or found["key"] != record.headline or found["key"] in TABLE:
        return []
    sign = f" {found['sign']}" if found["sign"] else ""
    before = "" if found["before"] is None else f" (before {found['before']}, {found['gain']})"
    return [f"{found['label']}: {found['value']}{sign}{before}"]


def _accuracies(record: Record, by_class: bool) -> list[str]:
    """Source and target test; [] if neither was measured and the run has other figures."""
    after, before = record.figures("selected"), record.figures("before")
    rows = [(name, number(before.get(key)), number(after.get(key))) for key, name in TABLE.items()]
    if not by_class:
        rows = [row for row in rows if row[2] is not None]
        if not rows:
            return []
    unmeasured = rows[-1][2] is None
    classes = accuracy_by_class(record) if by_class else {}
    earlier = accuracy_by_class_before(record)
    hidden = len(classes) - CLASSES
    shown = (
        sorted(classes, key=lambda name: classes[name])[:CLASSES] if hidden > 0 else list(classes)
    )
    rows += [(f"  {short(name, 20)}", earlier.get(name), classes[name]) for name in shown]
    width = max(len(name) for name, _, _ in rows)
    if any(value is not None for _, value, _ in rows):
        lines = [f"{'accuracy, %':<{width}}   before    after   points"]
        for name, old, new in rows:
            gain = None if old is None or new is None else new - old
            lines.append(f"{name:<{width}} {percent(old):>8} {percent(new):>8} {points(gain):>8}")
    else:
        lines = [f"{'accuracy, %':<{width}}"]
        halves = {name: record.interval(key) for key, name in TABLE.items()}
        for name, _, new in rows:
            half = halves.get(name)
            interval = "" if half is None or new is None else f" ± {percent(half)}"
            lines.append(f"{name:<{width}} {percent(new):>8}{interval}")
    if hidden > 0:
        lines.append(f"  (the {CLASSES} hardest of {len(classes)} classes)")
    if unmeasured:
        lines.append(
            "Target test accuracy was not measured (no target test labels, or switched off)."
        )
    return lines


def _further(record: Record) -> list[str]:
    """A line for each other figure, with that before adaptation in front if there is one."""
    after, before = further(record), further(record, "before")
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


def _others(record: Record) -> list[str]:
    key = record.headline
    parts = [
        f"{name} {with_unit(value, record.kind(key).unit)}"
        for name, rule in (("last step", "last"), ("oracle", "oracle"))
        if (value := number(record.figures(rule).get(key))) is not None
    ]
    name = TABLE.get(key) or record.title(key)
    return [f"For reference, {name} under other rules: {', '.join(parts)}."] if parts else []
