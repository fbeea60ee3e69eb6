"""What is told of training while it runs, for a rehearsal, a test or an instrument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tlrun.data.pipeline.streams import Batch
from tlrun.methods.base import Phase, Progress


@dataclass(frozen=True)
class StepInfo:
    """A step of training. global_step: the number of steps of all phases before it."""

    global_step: int
    phase: Phase
    progress: Progress
    batch: Mapping[str, Batch]
    optimizer: torch.optim.Optimizer


def nothing(*_: object) -> None:
    """The hook that does nothing."""


@dataclass(frozen=True)
class Hooks:
    """Called by the trainer at these moments. What a hook raises ends the training, as a fault.

    before_step and after_step: around the updates of one batch. before_save and after_save: around
    `last.pt`, with the phase and its steps that are done. after_evaluation: with its row, in the
    first process. before_publish: when all phases are trained, before the choice of each selection
    rule becomes its checkpoint.
    """

    before_step: Callable[[StepInfo], None] = nothing
    after_step: Callable[[StepInfo], None] = nothing
    before_save: Callable[[Phase, int], None] = nothing
    after_save: Callable[[Phase, int], None] = nothing
    after_evaluation: Callable[[Mapping[str, Any]], None] = nothing
    before_publish: Callable[[], None] = nothing
