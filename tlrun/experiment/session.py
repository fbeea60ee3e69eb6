"""A `Session` is all that a config describes, built and put together: data, method, net, evaluator.

`assemble.open_session` makes one; training and evaluation work on it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tlrun.config.hashes import config_hash
from tlrun.config.schema import INITS
from tlrun.data.problems.pair import Data
from tlrun.engine import checkpoint
from tlrun.engine.distributed import Process
from tlrun.engine.trainer import Loop
from tlrun.errors import ConfigError
from tlrun.evaluate.evaluators.classes import Evaluator
from tlrun.evaluate.selection import candidates, min_effective_classes, why_none
from tlrun.experiment.initial_weights import InitialWeights
from tlrun.methods.balances.base import PART, Balance
from tlrun.methods.base import Method, Phase, Term
from tlrun.models.batch_norm import convert
from tlrun.models.build import batch_norm_mode, build_net
from tlrun.models.net import Net
from tlrun.models.transfer import print_table
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)


@dataclass
class Session:
    """What a run works with. `loop()` trains it; `load()` puts a checkpoint into the net."""

    cfg: dict[str, Any]
    run_dir: RunDir
    data: Data
    method: Method
    terms: dict[str, Term]
    balance: Balance | None
    learned_balance: torch.nn.Module | None  # what the balance learns
    phases: list[Phase]
    net: Net
    evaluator: Evaluator
    device: torch.device
    precision: str
    process: Process
    initial_weights: InitialWeights
    began: float = field(default_factory=time.time)  # when this sitting began

    @property
    def guard(self) -> dict[str, Any]:
        """The limits as applied, arguments of the functions of `selection`.

        The floor on the source applies where the last phase trains on it.
        """
        select, last = self.cfg["select"], self.phases[-1]
        trains_on_source = not {"source", *self.data.sources}.isdisjoint(last.streams)
        return {
            "num_classes": self.data.num_classes,
            "source_floor": float(select["source_floor"]) if trains_on_source else 0.0,
            "min_effective_classes": min_effective_classes(
                select["min_effective_classes"], self.cfg["data"].get("label_spaces", "shared")
            ),
        }

    def candidates(self, rows: list[dict[str, Any]], rule: str) -> list[dict[str, Any]]:
        """Rows that a rule may still choose, its choice so far first."""
        return candidates(self._competing(rows, rule), rule, **self.guard)  # type: ignore[return-value]

    def choose(self, rows: list[dict[str, Any]], rule: str) -> dict[str, Any] | None:
        """The row that a rule picks."""
        return next(iter(self.candidates(rows, rule)), None)

    def _competing(self, rows: list[dict[str, Any]], rule: str) -> list[dict[str, Any]]:
        """Those of the last phase: what comes before it is preparation.

        The evaluator's own rules look at all phases: a task may be at its best before the next one
        is learned.
        """
        anywhere = rule in self.evaluator.rules
        return [row for row in rows if anywhere or row.get("phase") == self.phases[-1].name]

    def loop(self) -> Loop:
        return Loop(
            self.cfg,
            run_dir=self.run_dir,
            data=self.data,
            net=self.net,
            method=self.method,
            terms=self.terms,
            balance=self.balance,
            phases=self.phases,
            evaluate=lambda: self.evaluator.row(self.net),
            candidates=self.candidates,
            finish_build=self.finish_build,
            carry_over=self.carry_over,
            process=self.process,
            device=self.device,
            precision=self.precision,
            config_hash=config_hash(self.cfg),
            further_rules=self.evaluator.rules,
            began=self.began,
        )

    def finish_build(self, net: Net) -> None:
        """After a phase has added its parts: batch norm by domain, device, compile."""
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

    def carry_over(self, index: int, before: set[str]) -> None:
        """`init` and `transfer.*`, at the start of phase `index`; before: the parts it found."""

        def fresh() -> Net:
            backbone = {**self.cfg["backbone"], "weights": None}
            net = build_net({"backbone": backbone}, self.data.input_shape)
            for phase in self.phases[: index + 1]:
                self.method.build(phase, net, self.data)
                self.finish_build(net)
            return net

        initial = self.initial_weights
        table = initial.apply(self.net, index, before, self.data.classes, fresh)
        if table is not None and self.process.first:
            log.info("%s", print_table(table))
            if initial.init not in INITS and not self.net.carried and initial.takes_all:
                log.warning("init=%s: nothing of that run fits, all is new", initial.init)
            self.run_dir.write_json(self.run_dir.transfer, [fate.row() for fate in table])

    def build_all(self) -> None:
        """Build the parts of every phase, for evaluation."""
        for phase in self.phases:
            self.method.build(phase, self.net, self.data)
        self.finish_build(self.net)

    def load(self, state: dict[str, Any]) -> None:
        """Put a checkpoint's parts and the method's state into place."""
        try:
            for name, part in state["parts"].items():
                self.net[name].load_state_dict(part)
        except RuntimeError as error:  # other sizes: the config is not the one it was trained with
            why = " ".join(str(error).split())
            raise ConfigError(f"the weights do not fit the net of this config: {why}") from error
        self.method.load_state_dict(state["method"])
        self.net.to(self.device).eval()

    def load_selected(self) -> dict[str, Any]:
        """Load the checkpoint that the selection rule kept; the last one if it chose none."""
        path = self.selected_path
        if path.stem != self.cfg["select"]["name"]:
            log.warning("the last step is used: %s", self.why_last())
        state = checkpoint.load(path)
        self.load(state)
        return state

    @property
    def selected_path(self) -> Path:
        path = self.run_dir.checkpoints / f"{self.cfg['select']['name']}.pt"
        return path if path.exists() else path.with_name("last.pt")

    def why_last(self) -> str:
        """Why the rule has no checkpoint of its own, in words."""
        rule = str(self.cfg["select"]["name"])
        rows = [row for row in self.run_dir.read_metrics() if row.get("split") == "eval"]
        chosen = self.choose(rows, rule)
        if chosen is None:
            return why_none(self._competing(rows, rule), rule, **self.guard)
        return (
            f"training has not come to its end, where {rule} chooses, or the weights of the step "
            f"that it chose ({chosen['step']}) are gone"
        )
