"""Progressive learning: tasks grow harder, and the features of earlier models feed the later ones.

For each task k in the order of the data a column of its own is trained,

    min over θ_k, h_k   E_k L( h_k( f_k(x; θ_k, f_1 .. f_{k-1}) ), y )

with the columns before it frozen (weights and batch statistics), so that no earlier task loses
anything: its logits stay the same to the bit. `lateral` says how they feed it: earlier features
added to its own (`add`) or standing beside them (`concat`), or `adapters` at every stage
(tlrun/models/columns.py; Rusu et al., "Progressive neural networks", arXiv 1606.04671, 2016);
`none` is the baseline of independent columns. x: (B, C, H, W); y: (B,) int64. Their games and mazes
are no data of ours: no figure to compare. Presets: `conf/experiment/progressive/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tlrun.config.ranges import BelowOne, Count, NotNegative, Scale
from tlrun.data.problems.label_space import TaskFacts, facts_as
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.losses.tasks import known_class_loss
from tlrun.methods.base import (
    Batches,
    DomainOutput,
    Method,
    Output,
    Phase,
    Progress,
    Requirements,
    Update,
)
from tlrun.methods.query import Query
from tlrun.models.columns import Column, fresh_copy, run, through
from tlrun.models.net import Net


class Progressive(Method):
    """lateral: add | concat | adapters | none. freeze: whether earlier columns are held still.

    alpha: where the adapters' scale of the earlier features starts. width, max_hidden: hidden units
    of an adapter, as a share of its channels and at most. label_smoothing: of class labels.
    """

    requirements = Requirements(streams=(), target_labels="all", kind="tasks")

    def __init__(
        self,
        lateral: Literal["add", "concat", "adapters", "none"] = "add",
        freeze: bool = True,
        alpha: NotNegative = 0.1,
        width: Scale = 0.5,
        max_hidden: Count = 32,
        label_smoothing: BelowOne = 0.0,
    ) -> None:
        self.lateral, self.freeze, self.alpha = lateral, freeze, alpha
        self.width, self.max_hidden = width, max_hidden
        self.label_smoothing = label_smoothing

    def phases(self, data: Data) -> list[Phase]:
        if others := [t.name for t in data.tasks.values() if t.kind != "class"]:
            raise ConfigError(f"method=progressive learns classes; the task {others[0]} has none")
        names, phases = list(data.tasks), []
        for k, name in enumerate(names):
            held = [part for earlier in range(k) for part in self.parts(names, earlier)]
            domain = str(data.tasks[name].domain)
            phases.append(Phase(name, (domain,), frozen=tuple(held) if self.freeze else ()))
        return phases

    def parts(self, names: list[str], k: int) -> tuple[str, str]:
        """The column and the head of task k; the last task's head is the net's main one."""
        head = "classifier" if k == len(names) - 1 else f"head_{names[k]}"
        return ("backbone" if k == 0 else f"column_{names[k]}", head)

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        self.names, self.target = list(data.tasks), facts_as(data.facts, TaskFacts).target_task
        k = self.names.index(phase.name)
        column, head = self.parts(self.names, k)
        dim = net.feature_dim
        if column not in net.parts:
            with torch.no_grad():
                x = torch.zeros(2, *net.input_shape, device=next(net.parameters()).device)
                net.eval()
                flow = run(net.backbone, x)
            fed = (self.lateral, self.width, self.alpha, self.max_hidden)
            made = Column(fresh_copy(net.backbone), flow, k, *fed)
            dim = made.feature_dim
            net.add(column, made)
        if head not in net.parts:
            net.add(head, net.new_head(len(data.tasks[phase.name].classes), dim))

    def features(self, net: Net, x: Tensor, k: int) -> Tensor:
        """(B, D) of task k's column, fed by those before it unless lateral="none"."""
        first = k if self.lateral == "none" else 0
        columns: list[nn.Module] = [net[self.parts(self.names, i)[0]] for i in range(first, k + 1)]
        return through(columns, x, learn_all=not self.freeze)

    def baselines(self, data: Data) -> dict[str, dict[str, Any]]:
        """Columns that nothing is fed to: what the earlier tasks are worth to the later ones."""
        return {} if self.lateral == "none" else {"baseline/alone": {"method.lateral": "none"}}

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        ((domain, drawn),) = batch.items()
        k = self.names.index(phase.name)
        features = self.features(net, drawn.x, k)
        logits = net[self.parts(self.names, k)[1]](features)
        assert drawn.y is not None
        loss = known_class_loss(logits, drawn.y, self.label_smoothing)
        yield Update(
            {"classification": loss}, outputs={domain: DomainOutput(drawn.x, features, logits)}
        )

    def shown(self, phase: Phase) -> dict[str, tuple[str, ...]]:
        return dict.fromkeys(phase.streams, ("features", "logits"))

    def predict(self, net: Net, x: Tensor, query: Query) -> Output:
        k = self.names.index(query.task or self.target)
        column, head = self.parts(self.names, k)
        if column not in net.parts or head not in net.parts:
            return Output()  # its phase is still to come
        features = self.features(net, x, k)
        return Output(scores=net[head](features), features=features)
