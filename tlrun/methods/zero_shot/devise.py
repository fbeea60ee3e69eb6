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
from torch import Tensor, nn

from tlrun.config.ranges import Positive
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.zero_shot import mapping as maps
from tlrun.methods.zero_shot.class_attributes import Signatures, mapping, measured, signatures
from tlrun.methods.zero_shot.trained_head import TrainedHead, held_out_heads
from tlrun.models.net import Forward, Net


class DeViSE(TrainedHead):
    """margin: by which the right class must win, in units of F."""

    needs_images = False

    def __init__(self, margin: Positive = 0.1) -> None:
        self.margin = margin

    def mapping_phase(self, data: Any) -> Phase:
        return Phase("mapping", parts=self.parts("mapping", data), frozen=("backbone",))

    def build(self, phase: Phase, net: Net, data: Any) -> None:
        super().build(phase, net, data)
        if phase.name == "mapping":
            self.add_held_out(net, mapping(net), data)

    def start(self, phase: Phase, net: Net, data: Any) -> None:
        if phase.name != "mapping":
            return
        _, x, y = measured(net, data)
        self.start_held_out(net)
        for one in held_out_heads(net):
            linear_map(one.head).fit_input(x[one.column[y] < len(one.others)])

    def shown(self, phase: Phase) -> Mapping[str, tuple[str, ...]]:
        return super().shown(phase) if phase.name == "features" else {}

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        if phase.name == "features":
            yield from super().step(net, batch, phase, progress)
            return
        y = batch["source"].y
        assert y is not None
        features = net(batch["source"].x, head=None).features
        weight = torch.ones_like(y, dtype=torch.float32)
        loss = self.head_loss(mapping(net), signatures(net), features, y, weight)
        yield Update({"ranking": loss}, parts=("mapping",))
        yield from self.held_out_update(net, features, y)

    def head_loss(
        self, head: nn.Module, rows: Signatures, features: Tensor, y: Tensor, weight: Tensor
    ) -> Tensor:
        score = linear_map(head).compare(features, rows.unit[: rows.training_classes])
        return self.hinge(weight[:, None] * violations(score, y, self.margin))

    def hinge(self, violation: Tensor) -> Tensor:
        """violation: (B, K) >= 0, 0 for the right class -> a scalar, the mean over the batch.

        An image counts as much as its violations are multiplied with.
        """
        return violation.sum(1).mean()

    def head_scores(self, head: nn.Module, rows: Signatures, features: Tensor) -> Tensor:
        return linear_map(head).compare(features, rows.unit)

    def scores(self, net: Net, out: Forward) -> Tensor | None:
        if "mapping" not in net.parts:
            return None
        return self.head_scores(mapping(net), signatures(net), out.features)


def linear_map(head: nn.Module) -> maps.Mapping:
    assert isinstance(head, maps.Mapping)
    return head


def violations(score: Tensor, y: Tensor, margin: float) -> Tensor:
    """max(0, margin + F(x, k) − F(x, y)) for each k, 0 for k = y. score: (B, K) -> (B, K)."""
    excess = (margin + score - score.gather(1, y[:, None])).clamp_min(0)
    return excess.masked_fill(torch.nn.functional.one_hot(y, score.shape[1]).bool(), 0.0)
