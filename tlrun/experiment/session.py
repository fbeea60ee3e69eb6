"""A `Session` is all that a config describes, built and put together: data, method, net, evaluator.

`assemble.open_session` makes one; training and evaluation work on it.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tlrun.engine import checkpoint
from tlrun.engine.hooks import Hooks
from tlrun.engine.precision import autocast
from tlrun.engine.setup import TrainingSetup
from tlrun.engine.trainer import Trainer
from tlrun.errors import ConfigError
from tlrun.evaluate.figures import Figures
from tlrun.evaluate.selection import why_none
from tlrun.experiment.initial_weights import InitialWeights
from tlrun.models.build import build_net
from tlrun.models.net import PUBLISHED_HEAD, Net
from tlrun.models.transfer import print_table

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Session(TrainingSetup):
    """What a run works with. `trainer().fit()` trains it; `load()` puts a checkpoint into place."""

    initial_weights: InitialWeights

    def trainer(self, hooks: Hooks | None = None, *, evaluates: bool = True) -> Trainer:
        return Trainer(self, hooks, evaluates=evaluates)

    def carry_over(self, index: int, parts_before: set[str]) -> None:
        """`init` and `transfer.*`, at the start of phase number `index`."""

        def fresh() -> Net:
            backbone = {**self.cfg["backbone"], "weights": None}
            net = build_net({"backbone": backbone}, self.data.input_shape)
            for phase in self.phases[: index + 1]:
                self.method.build(phase, net, self.data)
                self.finish_build(net)
            if PUBLISHED_HEAD in self.net.parts:
                head = copy.deepcopy(self.net[PUBLISHED_HEAD])
                head.reset_parameters()  # type: ignore[operator]
                net.add(PUBLISHED_HEAD, head)
            return net

        initial = self.initial_weights
        table = initial.apply(self.net, index, parts_before, self.data.classes, fresh)
        if table is not None and self.process.first:
            log.info("%s", print_table(table))
            self.run_dir.write_json(self.run_dir.transfer, [stage.row() for stage in table])

    # ---- the weights of a checkpoint ------------------------------------------------------

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

    def test(self) -> tuple[Figures, Any]:
        """The test figures of the loaded weights, in the precision of the run, and their details.

        Autocast must not stay open over a `load_state_dict`: it caches converted weights, and the
        second test would run with the first one's.
        """
        with torch.no_grad(), autocast(self.precision, self.device):
            return self.evaluator.test(self.net)

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
            return why_none(self.competing(rows, rule), rule, self.guard)
        return (
            f"training has not come to its end, where {rule} chooses, or the weights of the step "
            f"that it chose ({chosen['step']}) are gone"
        )
