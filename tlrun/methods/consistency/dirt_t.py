"""DIRT-T: VADA, then refinement on the target alone, in steps that stay close to what was believed.

    phase 1  VADA (tlrun/methods/consistency/vada.py)
    phase 2  min_θ  E_T [ target_weight · ( H(p_θ(x)) + VAT(x) )  +  beta · KL(q(x) ‖ p_θ(x)) ]

q is what the net itself said at the last of the points that lie `interval` steps apart, so that the
decision boundary moves in small steps, as by a natural gradient. No image of the source is seen in
phase 2. Shu, Bui, Narui and Ermon, ICLR 2018, eq. 9-11: beta and target_weight 1e-2.
x: (B, C, H, W). Published: MNIST→MNIST-M 98.7, SVHN→MNIST 99.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tlrun.config.ranges import Count, Weight
from tlrun.data.problems.pair import Data
from tlrun.losses.consistency import divergence_from
from tlrun.methods.base import Batches, DomainOutput, Phase, Progress, Update
from tlrun.methods.consistency.teacher_student import teacher_of
from tlrun.methods.consistency.vada import VADA
from tlrun.models.ema import EmaTeacher
from tlrun.models.net import Net

ANCHOR = "anchor"


@dataclass(eq=False)
class DirtT(VADA):
    """beta: weight of staying close. interval: steps between the points. refine_steps: length of
    phase 2, None = as long as phase 1. The others are VADA's.
    """

    beta: Weight = 0.01
    interval: Count = 500
    refine_steps: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()

    def phases(self, data: Data) -> list[Phase]:
        parts = ("backbone", "classifier")
        return [
            Phase("vada", self.requirements.streams),
            Phase("refine", ("target",), parts=parts, steps=self.refine_steps),
        ]

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        super().build(phase, net, data)
        if phase.name == "refine":
            net.add(ANCHOR, EmaTeacher(net, own_statistics=False))

    def start(self, phase: Phase, net: Net, data: Data) -> None:
        if phase.name == "refine":  # from the average, which is what VADA is judged by
            teacher_of(net).give(net)
            self.anchor(net).copy(net)
            self.followed = 0
        else:
            super().start(phase, net, data)

    def shown(self, phase: Phase) -> Mapping[str, tuple[str, ...]]:
        """Phase 2 reads no label."""
        return super().shown(phase) if phase.name == "vada" else {"target": ("features", "logits")}

    @staticmethod
    def anchor(net: Net) -> EmaTeacher:
        anchor = net[ANCHOR]
        assert isinstance(anchor, EmaTeacher)
        return anchor

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        if phase.name == "vada":
            yield from super().step(net, batch, phase, progress)
            return
        fresh = progress.step != self.followed
        teacher = self.teacher(net, progress)
        anchor = self.anchor(net)
        if fresh and progress.step % self.interval == 0:
            anchor.copy(teacher.inner)
        x = batch["target"].x
        believed = anchor.teach(x, "target").logits
        out = net(x, "target")
        assert out.logits is not None
        assert believed is not None
        losses = self.target_losses(net, x, out.logits)
        losses["stay"] = self.beta * divergence_from(believed, out.logits)
        yield Update(losses, outputs={"target": DomainOutput(x, out.features, out.logits)})
