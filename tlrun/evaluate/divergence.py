"""Did the training work at all? A pure function over the rows of metrics.jsonl. Imports no torch.

diverged            at the end of a phase the cross-entropy of the source's labels is above
                    10 · ln K (ten times that of guessing among K classes), or the sum of the losses
                    above 100 times that of the phase's first row (taken as at least 1 and at most
                    10⁴), or one of them is not finite
never left chance   no evaluation after a step has a labelled validation set right more often than
                    always naming its largest class would, by two standard deviations:
                    accuracy ≤ q + 2 √(q (1 − q) / n)

Only the cross-entropy has a scale of its own: an adversary's loss rises by design and penalties
rise from 0, so the sum is given more room. The floor and ceiling on where it began are for sums
near 0, and for nets that were blown up within the first row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlrun.evaluate.figures import finite

Row = Mapping[str, Any]
CROSS_ENTROPY = "loss/classification"
TIMES_GUESSING, TIMES_FIRST = 10.0, 100.0
FIRST = (1.0, 1e4)  # where the sum of the losses is taken to begin, at least and at most
DEVIATIONS = 2.0


@dataclass(frozen=True)
class Chance:
    """Guessing on a labelled set. share: of its largest class, in [0, 1]; count: its examples."""

    share: float
    count: int

    @classmethod
    def of(cls, counts: Iterable[int]) -> Chance:
        """counts: the examples of each class, at least one in all."""
        sizes = list(counts)
        return cls(max(sizes) / sum(sizes), sum(sizes))

    @property
    def limit(self) -> float:
        """The highest accuracy that does not tell a model from guessing."""
        spread = math.sqrt(self.share * (1 - self.share) / max(self.count, 1))
        return min(1.0, self.share + DEVIATIONS * spread)


@dataclass(frozen=True)
class Failure:
    """kind: "diverged" or "never left chance"; why: a sentence with the figures."""

    kind: str
    why: str


def failure(
    rows: Sequence[Row], num_classes: int, chances: Mapping[str, Mapping[str, Any]]
) -> Failure | None:
    """What went wrong in training, the gravest first; None if nothing did.

    rows: of metrics.jsonl in order of time. num_classes: of the main head, 0 without one. chances:
    {key of an evaluation row: {"share", "count"}} of the sets that training had labels for.
    """
    return _diverged(rows, num_classes) or _at_chance(rows, chances)


def _diverged(rows: Sequence[Row], num_classes: int) -> Failure | None:
    ends: dict[str, list[Row]] = {}  # phase -> its first and its last row
    for row in rows:
        if row.get("split") == "train":
            ends.setdefault(str(row.get("phase")), [row])[1:] = [row]
    for phase, ends_of_phase in ends.items():
        first, last = ends_of_phase[0], ends_of_phase[-1]
        losses = {k: finite(v) for k, v in last.items() if k.startswith("loss/")}
        for key, value in losses.items():
            if value is None:
                return _failed(f"the loss '{_name(key)}' is not finite at the end of {phase}")
        guessing = math.log(max(num_classes, 2))
        entropy = losses.get(CROSS_ENTROPY)
        if entropy is not None and entropy > TIMES_GUESSING * guessing:
            return _failed(
                f"the classification loss is {entropy:.3g} at the end of {phase}, where guessing "
                f"has {guessing:.3g}"
            )
        begin, end = _total(first), sum(value for value in losses.values() if value is not None)
        if begin is None or end > TIMES_FIRST * min(max(begin, FIRST[0]), FIRST[1]):
            began = "not finite" if begin is None else f"{begin:.3g}"
            return _failed(
                f"the training loss is {end:.3g} at the end of {phase}, and was {began} in its "
                "first row"
            )
    return None


def _failed(what: str) -> Failure:
    return Failure(
        "diverged",
        f"Training diverged: {what} (learning rate or a weight too high?). Its figures say nothing "
        "about the method.",
    )


def _at_chance(rows: Sequence[Row], chances: Mapping[str, Mapping[str, Any]]) -> Failure | None:
    trained = [row for row in rows if row.get("split") == "eval" and (row.get("step") or 0) > 0]
    for key, told in chances.items():
        chance = Chance(float(told["share"]), int(told["count"]))
        accuracies = [v for row in trained if (v := finite(row.get(key))) is not None]
        if accuracies and max(accuracies) <= chance.limit < 1.0:
            return Failure(
                "never left chance",
                f"Training never left chance: {key.replace('/', ' ').replace('_', ' ')} is at most "
                f"{100 * max(accuracies):.1f} %. The largest class is {100 * chance.share:.1f} % "
                f"of {chance.count} examples, two standard deviations above it are "
                f"{100 * chance.limit:.1f} % (learning rate too low or too high, too few steps?). "
                "Its figures say nothing about the method.",
            )
    return None


def _total(row: Row) -> float | None:
    """The sum of a row's losses; None if one is not finite."""
    values = [finite(value) for key, value in row.items() if key.startswith("loss/")]
    return None if None in values else sum(value for value in values if value is not None)


def _name(key: str) -> str:
    return key.removeprefix("loss/")
