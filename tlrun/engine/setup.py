"""What the trainer works with; `experiment.session.Session` is one, put together from a config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tlrun.data.problems.pair import Data
from tlrun.engine.distributed import Process
from tlrun.evaluate.evaluators.class_figures import Evaluator
from tlrun.evaluate.selection import Guard, candidates, resolve_min_effective_classes
from tlrun.methods.balances.base import PART, Balance
from tlrun.methods.base import Method, Phase, Term
from tlrun.methods.build import batch_norm_mode
from tlrun.models.batch_norm import convert
from tlrun.models.net import Net
from tlrun.run_folder.run_dir import RunDir

Row = dict[str, Any]


@dataclass(kw_only=True)
class TrainingSetup:
    """Everything is built and checked; nothing is trained yet.

    cfg: the resolved config. balance: how task losses are combined (None = their sum), and
    learned_balance what it learns. began: time.time() when this sitting began.
    """

    cfg: dict[str, Any]
    run_dir: RunDir
    data: Data
    method: Method
    terms: dict[str, Term]
    balance: Balance | None
    learned_balance: torch.nn.Module | None
    phases: list[Phase]
    net: Net
    evaluator: Evaluator
    device: torch.device
    precision: str
    process: Process
    began: float

    def carry_over(self, index: int, parts_before: set[str]) -> None:
        """Called at the start of phase number `index`, never on resume.

        parts_before: those of the net before the phase built its own. Here nothing is carried over.
        """

    def build_phase(self, phase: Phase) -> None:
        """Add the parts of a phase to the net and make them ready."""
        self._add_parts(phase)
        self.finish_build(self.net)

    def build_all(self) -> None:
        """Build the parts of every phase, for evaluation."""
        for phase in self.phases:
            self._add_parts(phase)
        self.finish_build(self.net)

    def _add_parts(self, phase: Phase) -> None:
        self.method.build(phase, self.net, self.data)
        for term in self.terms.values() if phase.terms else ():
            term.build(self.net)

    def finish_build(self, net: Net) -> None:
        """After a phase has added its parts: batch norm by domain, device, terms, compile."""
        synchronize = self.process.world > 1 and bool(self.cfg["trainer"]["sync_batch_norm"])
        if net is self.net and self.learned_balance is not None:
            net.add(PART, self.learned_balance)
        convert(net, batch_norm_mode(self.method, self.phases), synchronize)
        net.to(self.device)
        for term in self.terms.values() if net is self.net else ():
            term.attach(net)
        if self.cfg["trainer"]["compile"]:
            for part in net.parts.values():
                part.compile()  # in place: the keys of the state stay as they are

    # ---- selection ------------------------------------------------------------------------

    @property
    def rules(self) -> list[str]:
        """Selection rules that keep a checkpoint, the deciding one first.

        Not "last": last.pt is written anyway, with all that a resume needs.
        """
        asked = [str(self.cfg["select"]["name"]), *map(str, self.cfg["selectors"])]
        return [rule for rule in dict.fromkeys([*asked, *self.evaluator.rules]) if rule != "last"]

    @property
    def guard(self) -> Guard:
        """The limits as applied: a floor on the source where the last phase trains on it."""
        select, last = self.cfg["select"], self.phases[-1]
        trains_on_source = not {"source", *self.data.sources}.isdisjoint(last.streams)
        return Guard(
            num_classes=self.data.num_classes,
            source_floor=float(select["source_floor"]) if trains_on_source else 0.0,
            min_effective_classes=resolve_min_effective_classes(
                select["min_effective_classes"], self.cfg["data"].get("label_spaces", "shared")
            ),
        )

    def competing(self, rows: list[Row], rule: str) -> list[Row]:
        """Evaluations that a rule looks at: of the last phase, what comes before is preparation.

        The evaluator's own rules look at all phases: a task may be at its best before the next one
        is learned.
        """
        all_phases = rule in self.evaluator.rules
        return [row for row in rows if all_phases or row.get("phase") == self.phases[-1].name]

    def candidates(self, rows: list[Row], rule: str) -> list[Row]:
        """Evaluations that a rule may still choose, its choice so far first."""
        return candidates(self.competing(rows, rule), rule, self.guard)  # type: ignore[return-value]

    def choose(self, rows: list[Row], rule: str) -> Row | None:
        """The evaluation that a rule picks."""
        return next(iter(self.candidates(rows, rule)), None)
