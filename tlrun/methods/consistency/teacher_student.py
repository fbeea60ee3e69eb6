"""What consistency methods share: a student, its running average as the teacher, who predicts.

The teacher's batch norms use the statistics of the target images it is shown, the student's those
of its own view of them (`models/ema.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tlrun.data.problems.pair import Data
from tlrun.methods.base import DomainOutput, Method, Output, Phase, Progress, Requirements
from tlrun.methods.query import Query
from tlrun.models.ema import EmaTeacher
from tlrun.models.net import Forward, Net

TEACHER = "teacher"


class Averaged(Method):
    """A method whose running average predicts. Builds it after the parts of the class it joins.

    ema: decay of the running average, in [0, 1). own_statistics: as in EmaTeacher.
    """

    ema: float
    own_statistics = True
    followed = -1  # the last step at whose start the teacher followed

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        super().build(phase, net, data)
        net.add(TEACHER, EmaTeacher(net, own_statistics=self.own_statistics))

    def start(self, phase: Phase, net: Net, data: Data) -> None:
        teacher_of(net).copy(net)
        self.followed = 0

    def teacher(self, net: Net, progress: Progress) -> EmaTeacher:
        """The teacher, one step further: once a step, however many micro-batches it has.

        Early on it is the mean of all steps so far: the initial weights would last for long.
        """
        teacher = teacher_of(net)
        if progress.step != self.followed:
            teacher.follow(net, min(self.ema, progress.step / (progress.step + 1)))
            self.followed = progress.step
        return teacher

    def predict(self, net: Net, x: Tensor, query: Query) -> Output:
        out = teacher_of(net)(x, query.domain)
        return Output(scores=out.logits, features=out.features)

    def prediction_parts(self, parts: Mapping[str, Mapping[str, Tensor]]) -> Mapping[str, Any]:
        averaged: dict[str, dict[str, Tensor]] = {}
        for key, value in parts[TEACHER].items():  # inner.parts.classifier.out.weight
            _, _, part, name = key.split(".", 3)
            averaged.setdefault(part, {})[name] = value
        return {**parts, **averaged}


class Consistency(Averaged):
    """Base class of those that learn from the teacher."""

    requirements = Requirements(streams=("source", "target"))
    batch_norm = "per_domain"

    def __init__(self, ema: float) -> None:
        self.ema = ema

    def shown(self, phase: Phase) -> Mapping[str, tuple[str, ...]]:
        """As `shown_to` has it."""
        return {**super().shown(phase), "target": ("features", "logits")}

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("classifier", net.new_head(data.num_classes))
        super().build(phase, net, data)


def teacher_of(net: Net) -> EmaTeacher:
    teacher = net[TEACHER]
    assert isinstance(teacher, EmaTeacher)
    return teacher


def shown_to(
    inputs: Mapping[str, Tensor], out: Mapping[str, Forward], labels: Tensor | None
) -> dict[str, DomainOutput]:
    """For terms: the views that the student saw, and what it made of them. labels: the source's."""
    y = {"source": labels}
    return {n: DomainOutput(x, out[n].features, out[n].logits, y.get(n)) for n, x in inputs.items()}
