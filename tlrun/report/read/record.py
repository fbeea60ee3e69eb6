"""A run folder, read for showing: whatever is missing, damaged or NaN is simply absent here.

The report is the last thing a run does and the first thing one wants of a failed run, so reading is
lenient on purpose: a record always comes back, and each plot or table decides whether it has what
it needs.
"""

from __future__ import annotations

import csv
import functools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrun.errors import ConfigError
from tlrun.evaluate.divergence import Failure, failure
from tlrun.evaluate.figures import Kind, kind_of, title
from tlrun.files.csv_file import read_rows
from tlrun.files.yaml_file import read_yaml
from tlrun.run_folder.run_dir import RunDir

Row = dict[str, Any]
RULES = ("selected", "last", "oracle")
UNKNOWN = -1  # the label of an image whose class nobody gave


@dataclass(frozen=True)
class Predictions:
    """`predictions.csv`: an entry per target test image; classes as indices or UNKNOWN."""

    index: list[str]
    path: list[str]
    label: NDArray[np.int64]
    prediction: NDArray[np.int64]
    confidence: NDArray[np.float64]

    @property
    def known(self) -> NDArray[np.bool_]:
        return (self.label != UNKNOWN) & (self.prediction != UNKNOWN)


@dataclass
class Record:
    """Everything the report shows of one run, but for the features (read where they are drawn)."""

    path: Path
    run: RunDir
    config: Row = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    environment: Row = field(default_factory=dict)
    status: Row = field(default_factory=dict)
    summary: Row = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    predictions: Predictions | None = None
    baseline: Record | None = None
    output: Path | None = None  # another folder for the page, where the run's own is read-only

    @property
    def page(self) -> RunDir:
        """Where the page and its plots are written."""
        return self.run if self.output is None else RunDir(self.output)

    @property
    def state(self) -> str:
        return str(self.status.get("state") or self.summary.get("status") or "unknown")

    @property
    def method(self) -> str:
        return self._name("method")

    @property
    def data(self) -> str:
        return self._name("data")

    @property
    def seed(self) -> Any:
        return self.summary.get("seed", self.config.get("seed"))

    def figures(self, rule: str) -> Row:
        """The figures under a rule of RULES, or those `before` adaptation; {} if there are none."""
        if rule != "before":
            return mapping(self.summary.get(rule))
        before = mapping(self.summary.get("before"))
        if not before and self.baseline is not None:
            before = self.baseline.summary
        return mapping(before.get("selected")) or before

    @property
    def headline(self) -> str:
        """The key of the figure of the task that was trained."""
        return str(self.summary.get("headline") or "target_test/accuracy")

    @functools.cached_property
    def training_failure(self) -> Failure | None:
        """Whether the training diverged or never left chance, by the rows that were logged."""
        return failure(self.rows, len(self.classes), mapping(self.summary.get("chance")))

    def kind(self, key: str) -> Kind:
        """What a figure is."""
        return kind_of(key, mapping(self.summary.get("figures")))

    def title(self, key: str) -> str:
        """What a figure is called: "target test accuracy"."""
        told = mapping(mapping(self.summary.get("figures")).get(key)).get("name")
        return str(told) if told else title(key, self.kind(key))

    def interval(self, key: str, rule: str = "selected") -> float | None:
        """Half the width of the figure's 95 % interval, if it has one."""
        figures, told = self.figures(rule), mapping(mapping(self.summary.get("figures")).get(key))
        place, _, name = key.rpartition("/")
        beside = [f"{place}/ci95", f"{place}_ci95"] if place and name == "accuracy" else []
        keys = [str(told["ci95"])] if "ci95" in told else [f"{key}_ci95", *beside]
        return next((v for k in keys if (v := number(figures.get(k))) is not None), None)

    def split(self, name: str) -> list[Row]:
        return [row for row in self.rows if row.get("split") == name]

    @property
    def selected_at(self) -> float | None:
        """Where the selected checkpoint lies on the axis of the curves (`at` of its evaluation)."""
        chosen = self.figures("selected")
        step = number(chosen.get("step"))
        if step is None:
            return None
        same = [row for row in self.split("eval") if row.get("step") == step]
        in_phase = [row for row in same if row.get("phase") == chosen.get("phase")]
        return float((in_phase or same)[-1]["at"]) if same else step

    def _name(self, key: str) -> str:
        """A run that failed early has the name in its overrides or its config only."""
        if self.summary.get(key):
            return str(self.summary[key])
        for override in self.overrides:
            if override.startswith(f"{key}="):
                return override.split("=", 1)[1]
        choice = mapping(self.config.get("choices")).get(key)
        if choice:
            return str(choice)
        group = self.config.get(key)
        if isinstance(group, dict):
            target = str(group.get("_target_", "")).split(".")
            return str(group.get("name") or (target[-2] if len(target) > 1 else "unknown"))
        return str(group or "unknown")


def read_record(path: Path) -> Record:
    """Read a run folder. Raises ConfigError if `path` is not one."""
    run = RunDir(path) if is_run(Path(path)) else RunDir.open(path)
    classes = [str(name) for name in mapping(_json(run.label_space)).get("classes") or []]
    overrides = _yaml(run.overrides)
    baseline = Path(path) / "baseline"
    return Record(
        path=Path(path),
        run=run,
        config=mapping(_yaml(run.config)),
        overrides=[str(item) for item in overrides] if isinstance(overrides, list) else [],
        environment=mapping(_json(run.environment)),
        status=mapping(_json(run.status)),
        summary=mapping(_json(run.summary)),
        rows=lay_end_to_end(_metrics(run.metrics)),
        classes=classes,
        predictions=_predictions(run.predictions, classes),
        baseline=read_record(baseline) if is_run(baseline) else None,
    )


def is_run(path: Path) -> bool:
    """Whether `path` holds a run, even one that died before it wrote more than its config."""
    return any((path / name).is_file() for name in ("config.yaml", "status.json"))


def lay_end_to_end(rows: list[Row]) -> list[Row]:
    """Give each row `at`, its place on one axis: phases that count anew follow each other."""
    offset, previous, phase = 0.0, 0.0, None
    laid = []
    for row in rows:
        step = number(row.get("step"))
        if step is None:
            continue
        if phase is not None and row.get("phase") != phase and step < previous:
            offset += previous
        phase, previous = row.get("phase"), step
        laid.append({**row, "at": offset + step})
    return laid


def series(rows: list[Row], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(at, value) of the rows where `key` is a finite number; both (n,), n may be 0."""
    pairs = [(row["at"], value) for row in rows if (value := number(row.get(key))) is not None]
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def keys(rows: list[Row], prefix: str) -> list[str]:
    """The keys under `prefix` with at least one finite number, in order of appearance."""
    found: dict[str, None] = {}
    for row in rows:
        found.update(
            {k: None for k, v in row.items() if k.startswith(prefix) and number(v) is not None}
        )
    return list(found)


def number(value: Any) -> float | None:
    """A finite number, or None (null, NaN, text, a truth value)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def accuracy_by_class(record: Record) -> dict[str, float]:
    """Target test accuracy of each class with images: by the predictions, else the summary."""
    table = record.predictions
    if table is not None and table.known.any():
        right = table.label == table.prediction
        used = {int(k) for k in table.label[table.known]}
        return {class_name(record, k): float(right[table.label == k].mean()) for k in sorted(used)}
    return by_class_of(record.figures("selected"))


def accuracy_by_class_before(record: Record) -> dict[str, float]:
    """The same of the model before adaptation; {} without a baseline."""
    logged = by_class_of(record.figures("before"))
    return accuracy_by_class(record.baseline) if record.baseline and not logged else logged


def by_class_of(figures: Row) -> dict[str, float]:
    logged = mapping(figures.get("target_test/accuracy_by_class"))
    return {str(k): value for k, v in logged.items() if (value := number(v)) is not None}


def class_name(record: Record, index: int) -> str:
    return record.classes[index] if 0 <= index < len(record.classes) else str(index)


def mapping(value: Any) -> Row:
    """`value` if it is a mapping, else {}."""
    return value if isinstance(value, dict) else {}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _yaml(path: Path) -> Any:
    try:
        return read_yaml(path)
    except ConfigError:
        return None


def _metrics(path: Path) -> list[Row]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # a line torn by kill -9
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _predictions(path: Path, classes: list[str]) -> Predictions | None:
    """Labels may be written as names or as indices: a name of the label space wins."""
    place = {name: i for i, name in enumerate(classes)}

    def index_of(text: str | None) -> int:
        text = text or ""
        for name in (text, text.strip()):
            if name in place:
                return place[name]
        return int(text) if text.strip().isdecimal() else UNKNOWN

    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(read_rows(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    if not rows or "prediction" not in rows[0]:
        return None
    return Predictions(
        index=[row.get("index") or "" for row in rows],
        path=[row.get("path") or "" for row in rows],
        label=np.array([index_of(row.get("label")) for row in rows], dtype=np.int64),
        prediction=np.array([index_of(row.get("prediction")) for row in rows], dtype=np.int64),
        confidence=np.array([_float(row.get("confidence")) for row in rows], dtype=np.float64),
    )


def _float(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
