"""DAP: direct attribute prediction.

Lampert, Nickisch, Harmeling, "Attribute-Based Classification for Zero-Shot Visual Object
Categorization", TPAMI 36 (2014), eq. 2-3:

    argmax_z  Π_m  p(a_m = a_m^z | x) / p(a_m = a_m^z),    p(a_m) = mean over the training classes

p(a_m | x) is a logistic classifier per attribute on the features, trained jointly with the backbone
by binary cross-entropy. a^z is binary. An attribute that is the same for all training classes
cannot be learned, and one that a class's row does not have (-1 in AwA's tables) is unknown: both
are left out of the product. x: (B, C, H, W) or (B, D); scores: (B, C), log-posterior ratios.
Published T1 on AWA2's proposed split: 46.1 (Xian et al., TPAMI 2018).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlrun.fp32 import in_fp32
from tlrun.methods.base import Batches, DomainOutput, Phase, Progress, Update
from tlrun.methods.zero_shot.class_attributes import Signatures, signatures
from tlrun.methods.zero_shot.trained_head import TrainedHead
from tlrun.models.net import Forward, Net


class DAP(TrainedHead):
    """threshold: of a continuous table: `overall` mean (as AwA's binary table was made) or the mean
    of each `column`, over the training classes."""

    needs_images = False
    mapped = False

    def __init__(self, threshold: Literal["overall", "column"] = "overall") -> None:
        self.threshold = threshold

    def build(self, phase: Phase, net: Net, data: Any) -> None:
        net.add("signatures", Signatures(data.facts, self.threshold))
        net.add("classifier", net.new_head(signatures(net).binary.shape[1]))  # a logit each
        self.add_held_out(net, net["classifier"], data)

    def start(self, phase: Phase, net: Net, data: Any) -> None:
        self.start_held_out(net)

    def shown(self, phase: Phase) -> dict[str, tuple[str, ...]]:
        """Its logits are of attributes."""
        return {"source": ("features", "labels")}

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        x, y = batch["source"].x, batch["source"].y
        assert y is not None
        out, rows = net(x), signatures(net)
        assert out.logits is not None
        loss = attribute_loss(out.logits, rows.binary[y], rows.known[y])
        yield Update(
            {"attributes": loss}, outputs={"source": DomainOutput(x, out.features, None, y)}
        )
        yield from self.held_out_update(net, out.features, y)

    def head_loss(
        self, head: nn.Module, rows: Signatures, features: Tensor, y: Tensor, weight: Tensor
    ) -> Tensor:
        known = rows.known[y] * weight[:, None]
        return attribute_loss(head(features), rows.binary[y], known)

    def scores(self, net: Net, out: Forward) -> Tensor | None:
        assert out.logits is not None
        return of_attributes(out.logits, signatures(net))

    def head_scores(self, head: nn.Module, rows: Signatures, features: Tensor) -> Tensor:
        return of_attributes(head(features), rows)


@in_fp32
def of_attributes(logits: Tensor, rows: Signatures) -> Tensor:
    """Scores (B, C) from a logit (B, A) for each attribute."""
    return posterior(F.logsigmoid(logits), F.logsigmoid(-logits), rows)


@in_fp32
def attribute_loss(logits: Tensor, binary: Tensor, known: Tensor) -> Tensor:
    """Mean binary cross-entropy of the attributes that are known; all (B, A) -> scalar.

    known: whether, or how much an attribute of an image counts.
    """
    weight = known.to(logits.dtype)
    total = F.binary_cross_entropy_with_logits(logits, binary, weight, reduction="sum")
    return total / weight.sum().clamp_min(1)


@in_fp32
def posterior(on: Tensor, off: Tensor, rows: Signatures) -> Tensor:
    """Σ_m log p(a_m = a_m^z | x) − log p(a_m = a_m^z).

    on, off: (B, A) log p(a_m = 1 | x) and log p(a_m = 0 | x) -> (B, C).
    """
    first = rows.training_classes
    known = rows.known[:first].float()
    prior = (rows.binary[:first] * known).sum(0) / known.sum(0).clamp_min(1)
    learned = (prior > 0) & (prior < 1)
    use = (rows.known & learned).float()
    yes, no = rows.binary * use, (1 - rows.binary) * use  # (C, A)
    safe = torch.where(learned, prior, 0.5)
    return (on - safe.log()) @ yes.T + (off - (1 - safe).log()) @ no.T
