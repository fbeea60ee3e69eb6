"""How long a phase is, and when within it something is logged, evaluated and saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tlrun.data.problems.pair import Data
from tlrun.methods.base import Phase

LEAST = 25  # steps from one evaluation to the next, which takes as long as 2 to 6 of them


def total_steps(phase: Phase, trainer: Mapping[str, Any], data: Data) -> int:
    """Length of a phase in steps: its own, else `trainer.steps`, else `trainer.epochs`."""
    if phase.steps is not None:
        return phase.steps
    if trainer.get("epochs") is None:
        return int(trainer["steps"])
    examples = len(data.stream_set(phase.epoch_stream or phase.streams[0]))
    return max(1, math.ceil(float(trainer["epochs"]) * examples / int(trainer["batch_size"])))


@dataclass(frozen=True)
class Cadence:
    """After how many steps of a phase something is due; after its last step all of it is."""

    total: int
    log_every: int
    evaluate_every: int
    save_every: int

    @classmethod
    def of(cls, trainer: Mapping[str, Any], total: int, *, own_length: bool = False) -> Cadence:
        """By default 100 rows, 20 evaluations and a checkpoint with each of these.

        A short budget has fewer evaluations, one in 25 steps. own_length: the phase has another
        length than the budget says, so its 20 were meant.
        """
        least = 1 if own_length else LEAST
        evaluate_every = int(trainer["eval_every"] or max(least, math.ceil(total / 20)))
        return cls(
            total,
            log_every=int(trainer["log_every"] or max(1, math.ceil(total / 100))),
            evaluate_every=evaluate_every,
            save_every=int(trainer["checkpoint_every"] or evaluate_every),
        )

    def logs(self, done: int) -> bool:
        return done % self.log_every == 0 or done == self.total

    def evaluates(self, done: int) -> bool:
        return done % self.evaluate_every == 0 or done == self.total

    def saves(self, done: int) -> bool:
        return done % self.save_every == 0 or done == self.total
