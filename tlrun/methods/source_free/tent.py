"""TENT: entropy minimisation over the scale and shift of batch norm, nothing else.

    min over γ, β   E_T H( p(y | x; γ, β) ),       H(p) = − Σ_k p_k log p_k

after the source phase, with the batch statistics of the target. Wang, Shelhamer, Liu, Olshausen
and Darrell, "Tent: fully test-time adaptation by entropy minimization", ICLR 2021, eq. 1 (Adam with
1e-3, one epoch; their digits start from SVHN). There the test images themselves are adapted to, and
each is normalised by its own batch. Here it is the target's training images, and in evaluation γ, β
and the running statistics of the target hold still, so that a prediction does not depend on what
else is in its batch.
x: (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tlrun.config.ranges import BelowOne, Count, LearningRate
from tlrun.data.pipeline.streams import Batch
from tlrun.data.problems.pair import Data
from tlrun.losses.entropy import entropy_loss
from tlrun.methods.base import DomainOutput, Phase, Progress, Update
from tlrun.methods.source_free.source_hypothesis import SourceFree, norms_of
from tlrun.models.net import Net


class Tent(SourceFree):
    """adapt_steps: length of the target phase (None = `trainer.steps`). adapt_lr: its learning
    rate (None = `optimizer.lr`). label_smoothing: in the source phase.
    """

    def __init__(
        self,
        adapt_steps: Count | None = 100,
        adapt_lr: LearningRate | None = None,
        label_smoothing: BelowOne = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        rate = {} if adapt_lr is None else {"lr": adapt_lr}
        self.adapting = replace(self.adapting, steps=adapt_steps, optimizer=rate)

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        """Called for each phase in turn, on resume too: what trains in it is decided here."""
        super().build(phase, net, data)
        norms = norms_of(net, phase.frozen, "tent")
        adapting = phase.name == self.adapting.name
        net.requires_grad_(not adapting)
        for norm in norms if adapting else ():
            for parameter in (norm.weight, norm.bias):
                if parameter is not None:
                    parameter.requires_grad_(True)

    def target_step(self, net: Net, drawn: Batch, progress: Progress) -> Iterator[Update]:
        out = net(drawn.x, "target")
        assert out.logits is not None
        yield Update(
            {"entropy": entropy_loss(out.logits)},
            outputs={"target": DomainOutput(drawn.x, out.features, out.logits)},
        )
