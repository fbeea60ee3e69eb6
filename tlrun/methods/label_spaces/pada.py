"""PADA: partial adaptation, for a target that lacks some classes of the source.

    γ_k = mean_(x ∈ T) p_k(x), divided by its largest; sums of γ are divided by the batch's own
    min_(f,h) max_d  E_S γ_y·CE(h(f(x)), y)
                   − λ·[ ½·E_S γ_y·BCE(d(f(x)), 1) + ½·E_T BCE(d(f(x)), 0) ]

Source images of classes that the target does not seem to have count less, in both losses, so that
nothing of the target is drawn towards them. γ is found anew every `reweight_every` steps by a pass
over the target's training images. Cao et al., "Partial adversarial domain adaptation", ECCV 2018,
eq. 4-6 (every 500 steps). The domain game is DANN's. x: (B, C, H, W); y: (B,) int64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tlrun.config.ranges import Count
from tlrun.data.problems.pair import Data
from tlrun.methods.adversarial.dann import DANN
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.batch_norm_forward import domain_outputs, forward_domains
from tlrun.models.net import Net
from tlrun.models.repeatable import judging


@dataclass(eq=False)
class PADA(DANN):
    """reweight_every: steps between two estimates of the class weights. The others are DANN's."""

    needs_images = False
    reweight_every: Count = 200
    weights: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()

    def phases(self, data: Data) -> list[Phase]:
        return [Phase(streams=self.requirements.streams, refresh_every=self.reweight_every)]

    def start(self, phase: Phase, net: Net, data: Data) -> None:
        device = next(net.parameters()).device
        self.weights = torch.ones(data.num_classes, device=device)

    @torch.no_grad()
    def refresh(self, phase: Phase, net: Net, data: Data, progress: Progress) -> None:
        if progress.step == 0:  # an untrained net's opinion is worth nothing
            return
        device = next(net.parameters()).device
        total = torch.zeros(data.num_classes, device=device)
        with judging(net):
            for x, _, _ in data.batches(data.stream_set("target"), device):
                total += net(x, "target").logits.softmax(1).sum(0)
        self.weights = (total / total.max()).clamp_min(1e-3)  # a batch of rare classes is no 0/0

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        labels = batch["source"].y
        assert labels is not None
        assert self.weights is not None
        weight = self.weights.to(labels.device)[labels]
        inputs = {name: batch[name].x for name in ("source", "target")}
        out = forward_domains(net, inputs, self.batch_norm, taps=self.taps)
        domain, told_apart = self.domain_losses(net, out, self.strength(progress), weight)
        logits = out["source"].logits
        assert logits is not None
        each = cross_entropy(logits, labels, reduction="none")
        yield Update(
            {
                "classification": (weight * each).sum() / weight.sum(),
                "domain": domain,
            },
            outputs=domain_outputs(batch, out),
            metrics={"domain_accuracy": told_apart, "weight": weight.mean()},
        )

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weights = state["weights"]
