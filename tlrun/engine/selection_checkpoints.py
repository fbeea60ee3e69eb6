"""The weights that selection rules may choose, as files: candidates first, then the choices.

While training runs, the weights at an evaluation are kept as `candidates/<n>.pt` as long as some
rule may still choose them. At the end the choice of each rule becomes `<rule>.pt`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from tlrun.engine import checkpoint
from tlrun.engine.metrics_log import MetricsLog, Row
from tlrun.engine.setup import TrainingSetup
from tlrun.evaluate.selection import Waiting, score

log = logging.getLogger(__name__)


class SelectionCheckpoints:
    """Of one run, in its first process. What it keeps follows from the rows of `metrics_log`."""

    def __init__(self, setup: TrainingSetup, metrics_log: MetricsLog) -> None:
        self.folder = setup.run_dir.checkpoints
        self.rules: Sequence[str] = setup.rules
        self.guard, self.competing, self.choose = setup.guard, setup.competing, setup.choose
        self.metrics_log = metrics_log
        self._rows: list[Row] = []  # of the log, as they were last looked at
        self._waiting: dict[str, Waiting] = {}
        self._numbers: dict[int, int] = {}  # of a row: its id, its place
        self._of_last: set[int] = set()  # candidates that the newest last.pt needs

    def waiting(self) -> set[int]:
        """Numbers of the evaluations that some rule may still choose."""
        if self._rows is not self.metrics_log.rows:  # at the beginning, and after a resume
            self._rows, self._numbers = self.metrics_log.rows, {}
            self._waiting = {rule: Waiting(rule, self.guard) for rule in self.rules}
        for number in range(len(self._numbers), len(self._rows)):  # each once: runs may have many
            row = self._rows[number]
            self._numbers[id(row)] = number
            for rule, waiting in self._waiting.items():
                if self.competing([row], rule):
                    waiting.add(row)
        return {self._numbers[id(row)] for of in self._waiting.values() for row in of.rows}

    def save_newest(self, state: Callable[[], dict[str, Any]]) -> None:
        """Keep the weights of the newest evaluation if a rule may choose it."""
        number = len(self.metrics_log.rows) - 1
        if number in self.waiting():
            checkpoint.save_candidate(self.folder, number, state(), _about(self._row(number)))

    def drop_superfluous(self) -> None:
        """After `last.pt` is saved.

        What the checkpoint before it needs stays: the newest one may turn out to be damaged.
        """
        waiting = self.waiting()
        checkpoint.keep_candidates(self.folder, waiting | self._of_last)
        self._of_last = waiting

    def publish(self) -> None:
        """At the end: the choice of each rule becomes its checkpoint, if it has one.

        What waits beside the choices stays: it could still win if the run became longer.
        """
        rows, waiting = self.metrics_log.rows, self.waiting()
        chosen: set[int] = set()
        for rule in self.rules:
            path = self.folder / f"{rule}.pt"
            row = self.choose(rows, rule)
            if row is not None:
                number = next(k for k in waiting if rows[k] is row)
                about = {**_about(row), "metric": rule, "value": score(row, rule)}
                if checkpoint.link_as(checkpoint.candidate_path(self.folder, number), path, about):
                    chosen.add(number)
                    continue
                log.warning(
                    "select=%s chose step %s, whose weights are gone from %s",
                    *(rule, row["step"], self.folder),
                )
            for file in (path, path.with_suffix(".json")):  # of a run that has become longer
                file.unlink(missing_ok=True)
        checkpoint.keep_candidates(self.folder, waiting - chosen)

    def take_back(self) -> None:
        """Before training goes on: what `publish` has renamed is a candidate again."""
        self._of_last = self.waiting()
        checkpoint.keep_candidates(self.folder, self._of_last)
        for number in self._of_last:
            about = _about(self._row(number))
            path = checkpoint.candidate_path(self.folder, number)
            for rule in self.rules if not path.is_file() else ():
                source = self.folder / f"{rule}.pt"
                if checkpoint.step_and_phase(source) == (about["step"], about["phase"]):
                    checkpoint.link_as(source, path, about)

    def _row(self, number: int) -> Row:
        return self.metrics_log.rows[number]


def _about(row: Row) -> dict[str, Any]:
    """What the sidecar of a candidate says of it."""
    return {"step": row["step"], "phase": row["phase"]}
