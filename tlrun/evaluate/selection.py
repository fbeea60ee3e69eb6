"""Which evaluation was the best? A pure function over the rows of metrics.jsonl.

Rules: the name of any validator (no target label); "target_accuracy", the accuracy on target
validation labels that were asked for and are counted; "last"; and "oracle", the accuracy on the
target's test labels, which only says what selection costs. Of several labelled tasks also
"task_mean", the mean of their validation figures, and "task_<name>", that of one.

A row before the first update of a phase that trains (its `phase_step` is 0) is no candidate of any
rule: it shows what training was given, not what it made.

A guard against collapse goes before every validator: an unsupervised score can be at its best when
all images fall in one class, or when the source has been forgotten. A row is eligible if

* its source_val/accuracy is at least `source_floor` times the best of all rows, and
* its target_val/effective_classes is at least 1 + `min_effective_classes` · (classes − 1),

each where the row has that figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from tlrun.errors import ConfigError, did_you_mean
from tlrun.evaluate.figures import finite

Row = Mapping[str, Any]
DEFAULT = "information_maximization"
ORACLE = "oracle/target_test_accuracy"
SOURCE, USED = "source_val/accuracy", "target_val/effective_classes"
TASK = "task_"
ROUNDING = 1e-6  # of accuracies and effective classes; an image is more
# Rules that see target labels: the keys of a row that they maximise, of which it has one. Where the
# target's task is a box there is no accuracy, and its mean IoU takes the place.
SUPERVISED = {
    "oracle": (ORACLE, "oracle/target_test_iou"),
    "target_accuracy": ("target_val/accuracy", "target_val/iou"),
}
MOST_CANDIDATES = 8  # of a rule at a time: each is a checkpoint on the disk


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
    return next((v for k in score_keys(rule) if (v := finite(row.get(k))) is not None), None)


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


def without_source(rule: str, labelled: bool) -> str:
    """The rule that stands for `rule` if there is no source.

    labelled: whether the target's validation images have labels that may be read. Then the default
    becomes the accuracy on these, else the last step. Raises ConfigError for a rule that looks at
    the source: it would choose nothing.
    """
    from tlrun.evaluate.validators import VALIDATORS

    if rule == DEFAULT:
        return "target_accuracy" if labelled else "last"
    if rule in VALIDATORS and "source_val" in VALIDATORS[rule].reads:
        raise ConfigError(
            f"select={rule} looks at source images, and there is no source; use "
            + ("select=target_accuracy" if labelled else "select=last, or target_val_labels=all")
        )
    return rule


def resolve_min_effective_classes(asked: float | str, label_spaces: str = "shared") -> float:
    """What "auto" means: 0.5, but 0.2 where the target may lack classes (partial, open)."""
    if asked != "auto":
        return float(asked)
    return 0.5 if label_spaces == "shared" else 0.2


@dataclass(frozen=True)
class Guard:
    """The limits that a run applies, `selection_guard` of its summary.

    num_classes: of the task that selection looks at. source_floor: share of the best source
    accuracy (0 = no floor). min_effective_classes: share of the classes beyond the first.
    """

    num_classes: int
    source_floor: float = 0.9
    min_effective_classes: float = 0.5

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any]) -> Guard | None:
        """What summary.json says; None for a run that does not say it whole (of an older tlrun)."""
        stated = summary.get("selection_guard")
        if not isinstance(stated, Mapping):
            return None
        limits = {limit.name: finite(stated.get(limit.name)) for limit in fields(cls)}
        if None in limits.values():
            return None
        return cls(**{**limits, "num_classes": int(stated["num_classes"])})  # type: ignore[arg-type]

    @property
    def least_effective_classes(self) -> float:
        """A share of 0 asks for nothing (one class is always used), 1 for all classes evenly."""
        return 1 + self.min_effective_classes * (self.num_classes - 1)

    def passes_use(self, row: Row) -> bool:
        """Whether the predictions of a row use enough classes."""
        used = finite(row.get(USED))
        return used is None or _reaches(used, self.least_effective_classes)


def select_row(rows: Sequence[Row], rule: str, guard: Guard) -> Row | None:
    """The row that `rule` chooses among evaluation rows in order of time; the later one wins a tie.

    None if no row has a value for the rule, or all that have one are guarded out. "last" and rules
    that see target labels are not guarded.
    """
    return next(iter(candidates(rows, rule, guard)), None)


class _Candidate(NamedTuple):
    score: float
    number: int  # among the rows
    reach: float  # how high the floor may rise: source accuracy up to source_floor, enough for ever
    row: Row


class Waiting:
    """The candidates of a rule as evaluations come in: each is looked at once."""

    def __init__(self, rule: str, guard: Guard) -> None:
        self.rule, self.guard = rule, guard
        self.rows: list[Row] = []  # those that may still be chosen, the choice so far first
        self._front: list[_Candidate] = []
        self._best_source, self._count = 0.0, 0

    def add(self, row: Row) -> None:
        """The next evaluation in order of time."""
        self._count += 1
        if self.rule == "last":
            self.rows = [row]
        elif sees_target_labels(self.rule):
            best = _best([*self.rows, *([row] if _trained(row) else [])], self.rule)
            self.rows = [] if best is None else [best]
        else:
            self._add_guarded(row)

    def _add_guarded(self, row: Row) -> None:
        guard = self.guard
        source, value = finite(row.get(SOURCE)), score(row, self.rule)
        self._best_source = max(self._best_source, source or 0.0)
        if value is not None and _trained(row) and guard.passes_use(row):
            highest = guard.source_floor  # no accuracy exceeds 1
            reach = highest if source is None else min(source, highest)
            self._front.append(_Candidate(value, self._count, reach, row))
        floor = guard.source_floor * self._best_source
        self._front = _front(c for c in self._front if _reaches(c.reach, floor))
        self.rows = [candidate.row for candidate in self._front]


def candidates(rows: Sequence[Row], rule: str, guard: Guard) -> list[Row]:
    """Rows that `rule` may still choose, whatever rows follow; the choice so far comes first.

    The floor rises with the best source accuracy, so a row is out for good once another one is as
    good in both score and source accuracy, and no worse in one (a Pareto front). More than
    `MOST_CANDIDATES` never wait: of too many the one goes whose source accuracy is least above
    that of the next better one, so that some other stands in for it unless the floor ends between
    the two. A row that is out never comes back.
    """
    waiting = Waiting(rule, guard)
    for row in rows:
        waiting.add(row)
    return waiting.rows


def _front(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Those that no other one makes superfluous: scores fall, and reach rises strictly."""
    front: list[_Candidate] = []
    for candidate in sorted(candidates, reverse=True):  # by score, then the later
        if not front or candidate.reach > front[-1].reach:
            front.append(candidate)
    while len(front) > MOST_CANDIDATES:
        gaps = {k: front[k].reach - front[k - 1].reach for k in range(1, len(front) - 1)}
        front.pop(min(gaps, key=gaps.__getitem__))
    return front


def eligible(rows: Iterable[Row], guard: Guard) -> list[bool]:
    """For every row, whether a validator may choose it."""
    rows = list(rows)
    floor = guard.source_floor * best_source(rows)
    return [_trained(row) and guard.passes_use(row) and _remembers(row, floor) for row in rows]


def best_source(rows: Iterable[Row]) -> float:
    """The highest accuracy on the source's validation images; 0 if there is none."""
    return max((finite(row.get(SOURCE)) or 0.0 for row in rows), default=0.0)


def why_none(rows: Sequence[Row], rule: str, guard: Guard) -> str:
    """Why `select_row` found no row, in words that follow "the last step stands for it:"."""
    valued = [row for row in rows if _trained(row) and score(row, rule) is not None]
    if not valued:
        return f"no evaluation has a value for {rule}"
    floor = guard.source_floor * best_source(rows)
    few = [row for row in valued if not guard.passes_use(row)]
    low = [row for row in valued if not _remembers(row, floor)]
    parts = []
    if few:
        most = max(row[USED] for row in few)
        parts.append(
            f"{len(few)} in too few classes (at most {_cut(most)} effective ones, where "
            f"{guard.least_effective_classes:.1f} of {guard.num_classes} are asked for)"
        )
    if low:
        most = max(row[SOURCE] for row in low)
        parts.append(
            f"{len(low)} with the source forgotten (at most {_cut(100 * most)} % right, where "
            f"{100 * floor:.1f} % are asked for)"
        )
    return f"no evaluation of {len(valued)} passed the guard of {rule}: {', '.join(parts)}"


def _cut(value: float) -> str:
    """To a tenth, downwards: what is below a limit never reads like it.

    >>> _cut(5.4999)
    '5.4'
    """
    return f"{math.floor(10 * value) / 10:.1f}"


def _trained(row: Row) -> bool:
    """Not before the first update; a phase of no steps has no `phase_step`, nor have old runs."""
    return row.get("phase_step") != 0


def _remembers(row: Row, floor: float) -> bool:
    """Whether the source is not forgotten."""
    source = finite(row.get(SOURCE))
    return source is None or _reaches(source, floor)


def _reaches(value: float, limit: float) -> bool:
    """At least the limit. 9 of 13 are 0.9 times 10 of 13, but fall short in floating point."""
    return value >= limit - ROUNDING


def choices(rows: Sequence[Row], guard: Guard) -> dict[str, Row]:
    """{rule: the row it would choose}, of every validator with a value in some row, and of "last".

    rows: evaluations of the last phase in order of time. Where the guard leaves no row it is the
    last one, as in a run.
    """
    validators = dict.fromkeys(
        key.removeprefix("validator/")
        for row in rows
        for key in row
        if key.startswith("validator/") and finite(row[key]) is not None
    )
    chosen: dict[str, Row] = {}
    for rule in [*validators, *(["last"] if rows else [])]:
        row = select_row(rows, rule, guard)
        chosen[rule] = rows[-1] if row is None else row
    return chosen


def regrets(
    rows: Sequence[Row], guard: Guard, chosen: Mapping[str, Row] | None = None
) -> dict[str, float]:
    """{rule: the oracle's target test accuracy − that of the row the rule chooses}, in [0, 1].

    chosen: what `choices` gives of the same, where it is there already; {} if no row has target
    test accuracy. It looks at test labels: for judging rules after the fact, never for choosing
    one.
    """
    measured = [row for row in rows if finite(row.get(ORACLE)) is not None]
    best = select_row(measured, "oracle", guard)
    if best is None:
        return {}
    chosen = choices(rows, guard) if chosen is None else chosen
    reached = {rule: finite(row.get(ORACLE)) for rule, row in chosen.items()}
    return {rule: best[ORACLE] - value for rule, value in reached.items() if value is not None}


def _best(rows: Iterable[Row], rule: str) -> Row | None:
    best: Row | None = None
    best_value = -math.inf
    for row in rows:
        value = score(row, rule)
        if value is not None and value >= best_value:
            best, best_value = row, value
    return best
