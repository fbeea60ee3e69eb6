"""Which evaluation was the best? A pure function over the rows of metrics.jsonl.

Rules: the name of any validator (no target label); "target_accuracy", the accuracy on target
validation labels that were asked for and are counted; "last"; and "oracle", the accuracy on the
target's test labels, which only says what selection costs. Of several labelled tasks also
"task_mean", the mean of their validation figures, and "task_<name>", that of one.

A guard against collapse goes before every validator: an unsupervised score can be at its best when
all images fall in one class, or when the source has been forgotten. A row is eligible if

* its source_val/accuracy is at least `source_floor` times the best up to it, and
* its target_val/effective_classes is at least `min_effective_classes` times the number of classes,

each where the row has that figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tlrun.errors import ConfigError, did_you_mean

Row = Mapping[str, Any]
DEFAULT = "information_maximization"
ORACLE = "oracle/target_test_accuracy"
TASK = "task_"
# Rules that see target labels: the keys of a row that they maximise, of which it has one. Where the
# target's task is a box there is no accuracy, and its mean IoU takes the place.
SUPERVISED = {
    "oracle": (ORACLE, "oracle/target_test_iou"),
    "target_accuracy": ("target_val/accuracy", "target_val/iou"),
}


def rules() -> list[str]:
    """Names that `select=` may take."""
    from tlrun.evaluate.validators import VALIDATORS  # imports torch

    return [*VALIDATORS, *SUPERVISED, f"{TASK}mean", "last"]


def score_keys(rule: str) -> tuple[str, ...]:
    """The keys of an evaluation row of which a rule (other than "last") maximises the first."""
    if rule.startswith(TASK):
        return (f"task/{rule.removeprefix(TASK)}",)
    return SUPERVISED.get(rule, (f"validator/{rule}",))


def score(row: Row, rule: str) -> float | None:
    """What a rule maximises, at one evaluation; None where the row has no finite value of it."""
    return next((v for k in score_keys(rule) if (v := _number(row.get(k))) is not None), None)


def sees_target_labels(rule: str) -> bool:
    return rule in SUPERVISED or rule.startswith(TASK)


def check_rule(rule: str) -> None:
    """Raise ConfigError, with the nearest name, if there is no such rule."""
    if rule not in rules():
        raise ConfigError(f"unknown selection rule '{rule}': {did_you_mean(rule, rules())}")


def without_target(rule: str) -> str:
    """The rule that stands for `rule` if the target has no images to validate on.

    The default becomes the accuracy on the source. Raises ConfigError for another rule that looks
    at such images: it would choose nothing.
    """
    from tlrun.evaluate.validators import VALIDATORS

    reads = VALIDATORS[rule].reads if rule in VALIDATORS else ()
    if "target_val" not in reads and rule != "target_accuracy":
        return rule
    if rule == DEFAULT:
        return "source_accuracy"
    raise ConfigError(
        f"select={rule} looks at target images, which target_images=none withholds; use "
        "select=source_accuracy"
    )


def select_row(
    rows: Sequence[Row],
    rule: str,
    *,
    num_classes: int,
    source_floor: float = 0.9,
    min_effective_classes: float = 0.5,
) -> Row | None:
    """The row that `rule` chooses among evaluation rows in order of time; the later one wins a tie.

    None if no row has a value for the rule, or all that have one are guarded out. "last" and rules
    that see target labels are not guarded.
    """
    if rule == "last":
        return rows[-1] if rows else None
    if sees_target_labels(rule):
        return _best(rows, rule)
    allowed = eligible(rows, num_classes, source_floor, min_effective_classes)
    candidates = [row for row, ok in zip(rows, allowed, strict=True) if ok]
    return _best(candidates, rule)


def eligible(
    rows: Iterable[Row],
    num_classes: int,
    source_floor: float = 0.9,
    min_effective_classes: float = 0.5,
) -> list[bool]:
    """For every row, whether it passes the guard against collapse."""
    passed: list[bool] = []
    best_source = 0.0
    for row in rows:
        source = _number(row.get("source_val/accuracy"))
        used = _number(row.get("target_val/effective_classes"))
        best_source = max(best_source, source or 0.0)
        passed.append(
            (source is None or source >= source_floor * best_source)
            and (used is None or used >= min_effective_classes * num_classes)
        )
    return passed


def choices(
    rows: Sequence[Row],
    num_classes: int,
    source_floor: float = 0.9,
    min_effective_classes: float = 0.5,
) -> dict[str, Row]:
    """{rule: the row it would choose}, of every validator with a value in some row, and of "last".

    rows: evaluations of the last phase in order of time. Where the guard leaves no row it is the
    last one, as in a run.
    """
    validators = dict.fromkeys(
        key.removeprefix("validator/")
        for row in rows
        for key in row
        if key.startswith("validator/") and _number(row[key]) is not None
    )
    guard = {"source_floor": source_floor, "min_effective_classes": min_effective_classes}
    found: dict[str, Row] = {}
    for rule in [*validators, *(["last"] if rows else [])]:
        row = select_row(rows, rule, num_classes=num_classes, **guard)
        found[rule] = rows[-1] if row is None else row
    return found


def regrets(
    rows: Sequence[Row],
    num_classes: int,
    source_floor: float = 0.9,
    min_effective_classes: float = 0.5,
) -> dict[str, float]:
    """{rule: the oracle's target test accuracy − that of the row the rule chooses}, in [0, 1].

    Over the rules and rows of `choices`; {} if no row has target test accuracy. It looks at test
    labels: for judging rules after the fact, never for choosing one.
    """
    best = _best([row for row in rows if _number(row.get(ORACLE)) is not None], "oracle")
    if best is None:
        return {}
    chosen = choices(rows, num_classes, source_floor, min_effective_classes)
    reached = {rule: _number(row.get(ORACLE)) for rule, row in chosen.items()}
    return {rule: best[ORACLE] - value for rule, value in reached.items() if value is not None}


def _best(rows: Iterable[Row], rule: str) -> Row | None:
    best: Row | None = None
    best_value = -math.inf
    for row in rows:
        value = score(row, rule)
        if value is not None and value >= best_value:
            best, best_value = row, value
    return best


def _number(value: Any) -> float | None:
    """The value as a finite float, else None: a metric that broke down chooses nothing."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None
