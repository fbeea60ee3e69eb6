"""A run folder, read for showing: whatever is missing, damaged or NaN is simply absent here.

The report is the last thing a run does and the first thing one wants of a failed run, so reading is
lenient on purpose: a record always comes back, and each plot or table decides whether it has what
it needs.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from tlrun.config.data_names import data_title
from tlrun.config.domains import Domains, domains_of
from tlrun.errors import ConfigError
from tlrun.evaluate import figures
from tlrun.evaluate.divergence import Failure, failure
from tlrun.evaluate.figures import Figure, Kind, finite, kind_of
from tlrun.files.yaml_file import read_yaml
from tlrun.report.read.predictions import UNLABELLED, PredictionTable, read_predictions
from tlrun.report.read.rows import Row, read_evaluations, read_rows
from tlrun.run_folder.run_dir import RunDir

RULES = ("selected", "last", "oracle")
PAIRS = ("folder", "features", "office_caltech_surf")  # an older summary.json calls all pairs so


class RunRecord:
    """Everything the report shows of one run, but for the features (read where they are drawn).

    Each file is read when it is first asked for: a leaderboard of a hundred runs needs few of them.
    output: another folder for the page, where the run's own is read-only.
    """

    def __init__(self, path: Path, output: Path | None = None) -> None:
        self.path, self.run = Path(path), RunDir(path)
        self.page = self.run if output is None else RunDir(output)

    # ---- files --------------------------------------------------------------------------------

    @cached_property
    def config(self) -> Row:
        return mapping(_yaml(self.run.config))

    @cached_property
    def overrides(self) -> list[str]:
        given = _yaml(self.run.overrides)
        return [str(item) for item in given] if isinstance(given, list) else []

    @cached_property
    def environment(self) -> Row:
        return mapping(_json(self.run.environment))

    @cached_property
    def status(self) -> Row:
        return mapping(_json(self.run.status))

    @cached_property
    def summary(self) -> Row:
        return mapping(_json(self.run.summary))

    @cached_property
    def rows(self) -> list[Row]:
        return read_rows(self.run.metrics)

    @cached_property
    def classes(self) -> list[str]:
        return [str(name) for name in mapping(_json(self.run.label_space)).get("classes") or []]

    @cached_property
    def predictions(self) -> PredictionTable | None:
        return read_predictions(self.run.predictions, self.classes)

    @property
    def newly_labelled(self) -> int:
        """Target test images that the net alone gave classes to; 0 if any label is known."""
        table = self.predictions
        if table is None or table.labelled.any():
            return 0
        return int((table.prediction != UNLABELLED).sum())

    @cached_property
    def baseline(self) -> RunRecord | None:
        path = self.path / "baseline"
        return RunRecord(path) if is_run(path) else None

    # ---- names --------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        return str(self.status.get("state") or self.summary.get("status") or "unknown")

    @cached_property
    def method(self) -> str:
        """With its terms, which are half of what was trained: "source_and_target + mcc"."""
        return " + ".join([self._name("method"), *self._terms()])

    @cached_property
    def data(self) -> str:
        """What the data are called: "mnist_usps", "pacs photo→sketch"."""
        if told := self.summary.get("data_title"):
            return str(told)
        if self.summary and self.data_set not in PAIRS:
            return self.data_set  # without reading config.yaml
        return data_title(self.config) or self.data_set

    @cached_property
    def data_set(self) -> str:
        """Without the domains: "pacs"."""
        return self._name("data")

    @cached_property
    def domains(self) -> Domains:
        """Those that were adapted; () where there are none."""
        told = mapping(self.summary.get("domains"))
        source, target = told.get("source"), told.get("target")
        if isinstance(source, list) and isinstance(target, list):
            return Domains(tuple(map(str, source)), tuple(map(str, target)))
        return domains_of(self.config)

    @property
    def seed(self) -> Any:
        return self.summary["seed"] if "seed" in self.summary else self.config.get("seed")

    def class_name(self, index: int) -> str:
        return self.classes[index] if 0 <= index < len(self.classes) else str(index)

    # ---- figures ------------------------------------------------------------------------------

    def figures(self, rule: str) -> Row:
        """The figures under a rule of RULES, or those `before` adaptation; {} if there are none."""
        if rule != "before":
            return mapping(self.summary.get(rule))
        before = mapping(self.summary.get("before"))
        if not before and self.baseline is not None:
            before = self.baseline.summary
        return mapping(before.get("selected")) or before

    def value(self, key: str, rule: str = "selected") -> float | None:
        return finite(self.figures(rule).get(key))

    def figure(self, key: str, rule: str = "selected") -> Figure:
        """As the evaluator stated it; its value is None where it was not measured."""
        return figures.read_figure(key, self.figures(rule), mapping(self.summary.get("figures")))

    @property
    def headline(self) -> str:
        """The key of the figure of the task that was trained."""
        return str(self.summary.get("headline") or "target_test/accuracy")

    @cached_property
    def training_failure(self) -> Failure | None:
        """Whether the training diverged or never left chance: the summary says so, and of an older
        run the rows that were logged."""
        if "training_failure" in self.summary:
            told = mapping(self.summary["training_failure"])
            return Failure(str(told.get("kind")), str(told.get("why"))) if told else None
        return failure(self.rows, len(self.classes), mapping(self.summary.get("chance")))

    def kind(self, key: str) -> Kind:
        """What a figure is."""
        return kind_of(key, mapping(self.summary.get("figures")))

    def title(self, key: str) -> str:
        """What a figure is called: "target test accuracy"."""
        stated = mapping(mapping(self.summary.get("figures")).get(key)).get("name")
        return str(stated) if stated else figures.title(key, self.kind(key))

    @property
    def accuracy_by_class(self) -> dict[str, float]:
        """Target test accuracy of each class with images: by predictions, else the summary."""
        table = self.predictions
        if table is not None and table.labelled.any():
            right = table.label == table.prediction
            used = sorted({int(k) for k in table.label[table.labelled]})
            return {self.class_name(k): float(right[table.label == k].mean()) for k in used}
        return _by_class(self.figures("selected"))

    @property
    def accuracy_by_class_before(self) -> dict[str, float]:
        """The same of the model before adaptation; {} without a baseline."""
        logged = _by_class(self.figures("before"))
        return self.baseline.accuracy_by_class if self.baseline and not logged else logged

    # ---- rows ---------------------------------------------------------------------------------

    @cached_property
    def training_rows(self) -> list[Row]:
        return [row for row in self.rows if row.get("split") == "train"]

    @cached_property
    def evaluations(self) -> list[Row]:
        """Without the other rows, where nothing else asked for these."""
        if "rows" in vars(self):
            return [row for row in self.rows if row.get("split") == "eval"]
        return read_evaluations(self.run.metrics)

    @property
    def selected_at(self) -> float | None:
        """Where the selected checkpoint lies on the axis of the curves, the global step."""
        chosen = self.figures("selected")
        step = finite(chosen.get("step"))
        if step is None:
            return None
        same = [row for row in self.evaluations if row.get("step") == step]
        in_phase = [row for row in same if row.get("phase") == chosen.get("phase")]
        return float((in_phase or same)[-1]["global_step"]) if same else step

    def _terms(self) -> list[str]:
        """By name. An older summary.json does not hold them, and a run that failed has none."""
        if isinstance(told := self.summary.get("terms"), list):
            return [str(name) for name in told]
        for override in self.overrides:
            if override.startswith("terms="):
                names = override.removeprefix("terms=").strip("[]").split(",")
                return [name.strip() for name in names if name.strip() not in ("", "null")]
        return [str(name) for name in mapping(self.config.get("terms"))]

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


def read_record(path: Path, output: Path | None = None) -> RunRecord:
    """Raises ConfigError if `path` is no run folder."""
    if not is_run(Path(path)):
        RunDir.open(path)
    return RunRecord(Path(path), output)


def is_run(path: Path) -> bool:
    """Whether `path` holds a run, even one that died before it wrote more than its config."""
    return any((path / name).is_file() for name in ("config.yaml", "status.json"))


def mapping(value: Any) -> Row:
    """`value` if it is a mapping, else {}."""
    return value if isinstance(value, dict) else {}


def _by_class(figures: Row) -> dict[str, float]:
    logged = mapping(figures.get("target_test/accuracy_by_class"))
    return {str(k): value for k, v in logged.items() if (value := finite(v)) is not None}


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
