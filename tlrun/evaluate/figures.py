"""What a figure is: its key, its name, its unit and its interval. Imports no torch.

An evaluator states a `Figure` for each value that it measures, and summary.json keeps what it said
under `figures`: nobody who shows a value guesses from its key whether it is a share.

    key         where the value stands in `selected` and `last`: "target_test/iou"
    unit        share   in [0, 1], shown in per cent; differences are points
                IoU     intersection over union in [0, 1], shown as it is
                nats    of a cross-entropy
                sides   lengths, as shares of the image's sides
                number  anything else
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Unit = Literal["share", "IoU", "nats", "sides", "number"]


@dataclass(frozen=True)
class Kind:
    """A metric. higher_is_better: None where neither is (a difference, a setting)."""

    name: str
    unit: Unit
    higher_is_better: bool | None = True


ACCURACY = Kind("accuracy", "share")
MEAN_ACCURACY = Kind("mean accuracy over classes", "share")
IOU = Kind("mean IoU", "IoU")
CLUSTERS = Kind("clustering accuracy of k-means", "share")
NMI = Kind("normalised mutual information of k-means", "number")
UNSTATED = Kind("", "number", None)

# The metrics of this package by the last part of their keys: for rows of metrics.jsonl, and for the
# summary of a run that does not say.
KINDS = {
    "accuracy": ACCURACY,
    "target_test_accuracy": ACCURACY,
    "training_classes_accuracy": MEAN_ACCURACY,
    "balanced_accuracy": Kind("balanced accuracy", "share"),
    "accuracy_by_class": Kind("accuracy of each class", "share"),
    "macro_f1": Kind("macro F1", "share"),
    "iou": IOU,
    "target_test_iou": IOU,
    "iou_50": Kind("share of boxes with an IoU of at least 0.5", "share"),
    "loss": Kind("loss", "nats", False),
    "seen": Kind("mean accuracy over seen classes", "share"),
    "unseen": Kind("mean accuracy over unseen classes", "share"),
    "harmonic_mean": Kind("harmonic mean of seen and unseen", "share"),
    "seen_unseen_area": Kind("area under unseen against seen", "number"),
    "gamma": Kind("γ", "number", None),
    "clustering_accuracy": CLUSTERS,
    "target_test_clustering_accuracy": CLUSTERS,
    "nmi": NMI,
    "target_test_nmi": NMI,
    "delta_m": Kind("mean relative gain over single tasks Δm", "share"),
}


@dataclass(frozen=True)
class Figure:
    """value: a number, {class: number}, or None where it could not be measured.

    ci95: half the width of its 95 % interval, in the same unit.
    """

    key: str
    value: Any
    kind: Kind
    ci95: float | None = None

    @property
    def ci95_key(self) -> str:
        """Where the interval stands: beside `a/b` under `a/ci95`."""
        return f"{self.key.rpartition('/')[0]}/ci95".lstrip("/")

    def under(self, prefix: str) -> Figure:
        """The same one, of a set: "iou" under "box_test" is "box_test/iou"."""
        return replace(self, key=f"{prefix}/{self.key}")


class Figures(Mapping[str, Any]):
    """Figures in order; as a mapping {key: value}, with the intervals under keys of their own."""

    def __init__(self, figures: Iterable[Figure] = ()) -> None:
        self.stated = {figure.key: figure for figure in figures}
        self._values: dict[str, Any] = {}
        for figure in self.stated.values():
            self._values[figure.key] = figure.value
            if figure.ci95 is not None:
                self._values[figure.ci95_key] = figure.ci95

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def about(self) -> dict[str, dict[str, Any]]:
        """What each of them is, for summary.json."""
        return {figure.key: about(figure) for figure in self.stated.values()}


def about(figure: Figure) -> dict[str, Any]:
    """{"name", "unit", "higher_is_better"}, and "ci95": the key of its interval if it has one."""
    return {
        "name": title(figure.key, figure.kind),
        "unit": figure.kind.unit,
        "higher_is_better": figure.kind.higher_is_better,
        **({"ci95": figure.ci95_key} if figure.ci95 is not None else {}),
    }


def title(key: str, kind: Kind) -> str:
    """ "target_test/iou" -> "target test mean IoU"."""
    group, _, last = key.rpartition("/")
    prefix = group.replace("/", " ").replace("_", " ")
    return f"{prefix} {kind.name or last.replace('_', ' ')}".strip()


def kind_of(key: str, told: Mapping[str, Any] | None = None) -> Kind:
    """Of a key: by what the summary says (`told`, its `figures`), else by the metric's name."""
    said = (told or {}).get(key)
    if isinstance(said, Mapping) and said.get("unit") in get_args(Unit):
        return Kind(str(said.get("name", key)), said["unit"], said.get("higher_is_better"))
    return KINDS.get(key.rpartition("/")[2], UNSTATED)


def read_figure(key: str, values: Mapping[str, Any], stated: Mapping[str, Any]) -> Figure:
    """Of a summary: `values` under a rule of selection, `stated` its `figures`.

    An evaluator that states nothing may leave an interval beside a value: of `a/b` under
    `a/b_ci95`, of the accuracy of `a` under `a/ci95` or `a_ci95`, too.
    """
    said = stated.get(key)
    where = said.get("ci95") if isinstance(said, Mapping) else None
    group, _, name = key.rpartition("/")
    beside = [f"{group}/ci95", f"{group}_ci95"] if group and name == "accuracy" else []
    halves = [finite(values.get(k)) for k in ([where] if where else [f"{key}_ci95", *beside])]
    ci95 = next((half for half in halves if half is not None), None)
    return Figure(key, finite(values.get(key)), kind_of(key, stated), ci95)


def is_interval(key: str) -> bool:
    """Whether a summary holds half of an interval there, not a figure."""
    return key.endswith("ci95")


def finite(value: Any) -> float | None:
    """A finite number, or None (null, NaN, text, a truth value)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def oracle_key(headline: str) -> str:
    """Where rows of metrics.jsonl hold a target test figure: `oracle/target_test_accuracy`."""
    return f"oracle/{headline.replace('/', '_')}"


# ---- in words -------------------------------------------------------------------------------


def written(value: float, unit: Unit) -> str:
    """0.931 as a share: "93.1"; as IoU "0.931"; other units with four significant digits."""
    if not math.isfinite(value):
        return "–"
    if unit == "share":
        return f"{100 * value:.1f}"
    return f"{value:.3f}" if unit == "IoU" else f"{value:.4g}"


def with_unit(value: float, unit: Unit) -> str:
    """0.931 as a share: "93.1 %"."""
    return written(value, unit) + (" %" if unit == "share" else "")


def difference(value: float, unit: Unit) -> str:
    """0.381 between shares: "+38.1" (points); between IoUs "+0.381"."""
    if unit == "share":
        return f"{100 * value:+.1f}"
    return f"{value:+.3f}" if unit == "IoU" else f"{value:+.4g}"


def scale(unit: Unit) -> float:
    """What an axis shows values times: 100 for shares."""
    return 100.0 if unit == "share" else 1.0


def axis(name: str, unit: Unit) -> str:
    """The label of such an axis: "target test accuracy, %"."""
    return f"{name}, %" if unit == "share" else name
