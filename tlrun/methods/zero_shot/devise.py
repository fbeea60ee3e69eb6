"""DeViSE: a bilinear model trained by a sum of hinges; and what ALE and SJE share with it.

Frome et al., "DeViSE: A Deep Visual-Semantic Embedding Model", NeurIPS 2013, eq. 1:

    F(x, y) = x̂ᵀ W φ(y),     loss = Σ_{y ≠ y_n} max(0, margin + F(x_n, y) − F(x_n, y_n))

over the training classes; φ(y): the class's row, of length 1; x̂: features, centred and scaled.
Phase `features` trains the backbone with a head over the training classes; phase `mapping` W alone,
on still features, by gradient. x: (B, ...); scores F: (B, C). Published T1 on AWA2's proposed
split: 59.7, H 27.8 (Xian et al., TPAMI 2018).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from tlrun.config.ranges import Positive
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.zero_shot.class_attributes import AttributeMethod, mapping, measured, signatures
from tlrun.models.net import Forward, Net


class DeViSE(AttributeMethod):
    """margin: by which the right class must win, in units of F."""

    needs_images = False

    def __init__(self, margin: Positive = 0.1) -> None:
        self.margin = margin

    def mapping_phase(self) -> Phase:
        return Phase("mapping", parts=("mapping",), frozen=("backbone",))

    def start(self, phase: Phase, net: Net, data: Any) -> None:
        if phase.name == "mapping":
            measured(net, data)

    def shown(self, phase: Phase) -> Mapping[str, tuple[str, ...]]:
        return super().shown(phase) if phase.name == "features" else {}

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        if phase.name == "features":
            yield from super().step(net, batch, phase, progress)
            return
        y = batch["source"].y
        assert y is not None
        seen = signatures(net).unit[: signatures(net).training_classes]
        score = mapping(net).compare(net(batch["source"].x, head=None).features, seen)
        yield Update({"ranking": self.hinge(violations(score, y, self.margin))}, parts=("mapping",))

    def hinge(self, violation: Tensor) -> Tensor:
        """violation: (B, K) >= 0, 0 for the right class -> a scalar, the mean over the batch."""
        return violation.sum(1).mean()

    def scores(self, net: Net, out: Forward) -> Tensor | None:
        if "mapping" not in net.parts:
            return None
        return mapping(net).compare(out.features, signatures(net).unit)


def violations(score: Tensor, y: Tensor, margin: float) -> Tensor:
    """max(0, margin + F(x, k) − F(x, y)) for each k, 0 for k = y. score: (B, K) -> (B, K)."""
    excess = (margin + score - score.gather(1, y[:, None])).clamp_min(0)
    return excess.masked_fill(torch.nn.functional.one_hot(y, score.shape[1]).bool(), 0.0)
