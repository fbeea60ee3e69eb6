"""Multi-source DANN (MDAN): a domain head for each source, and more weight on the worst source.

Zhao et al., "Adversarial multiple source domain adaptation", NeurIPS 2018. With R_i the
cross-entropy of source i and d_i = ½·E_S_i BCE(d_i, 1) + ½·E_T BCE(d_i, 0), small if source i and
the target are told apart, the bound is the largest of R_i − λ·d_i:

    min over f, h of   Σ_i w_i (R_i − λ·d_i),     each d_i minimised by its own head

    combine   soft: w = softmax(sharpness · (R − λ·d)), the gradient of 1/γ log Σ e^(γ(R_i − λ·d_i))
              hard: w = 1 for the largest           mean: w = 1/S

The weights act on f and h; every head is trained in full, as "min over d_i" asks, so that a source
without weight keeps a domain head that knows it. λ = trade_off · (2/(1+e^(−gamma·p)) − 1), DANN's.
x: (B, C, H, W) of each domain; features (B, D); domain logits (B,).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from tlrun.config.ranges import BelowOne, Depth, NotNegative, Weight, Width
from tlrun.data.problems.pair import Data
from tlrun.losses.adversarial import (
    domain_accuracy,
    domain_loss,
    reversal_strength,
    reverse_gradient,
)
from tlrun.methods.adversarial.multi_source_adaptation import MultiSourceAdaptation, sources_of
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.batch_norm_forward import domain_outputs
from tlrun.methods.generalisation.multi_source import risks
from tlrun.models.heads import DomainHead
from tlrun.models.net import Net


class MultiSourceDANN(MultiSourceAdaptation):
    """combine, sharpness (γ): of the sources, as above. trade_off, gamma: of λ. domain_hidden,
    domain_layers, domain_dropout: of the domain heads.
    """

    needs_images = False

    def __init__(
        self,
        combine: Literal["soft", "mean", "hard"] = "soft",
        sharpness: NotNegative = 10.0,
        trade_off: Weight = 1.0,
        gamma: NotNegative = 10.0,
        domain_hidden: Width = 100,
        domain_layers: Depth = 1,
        domain_dropout: BelowOne = 0.5,
    ) -> None:
        self.combine, self.sharpness = combine, sharpness
        self.trade_off, self.gamma = trade_off, gamma
        self.domain_size, self.domain_dropout = (domain_hidden, domain_layers), domain_dropout

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        super().build(phase, net, data)
        for name in data.sources:
            head = DomainHead(net.feature_dim, *self.domain_size, dropout=self.domain_dropout)
            net.add(f"domain_head_{name}", head)

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        out = self.forward(net, batch)
        sources = sources_of(batch)
        strength = self.trade_off * reversal_strength("sigmoid", progress.fraction, self.gamma)
        reversed_, apart, told_apart = [], [], []
        for name in sources:
            pair = [out[name].features, out["target"].features]
            reversed_.append(reverse_gradient(torch.cat(pair), strength))
            logits = net[f"domain_head_{name}"](reversed_[-1]).split([len(x) for x in pair])
            apart.append(domain_loss(*logits))
            told_apart.append(domain_accuracy(*logits))
        losses, domain = risks(out, sources), torch.stack(apart)
        weights = self.weights((losses - strength * domain).detach())
        for x, weight in zip(reversed_, weights, strict=True):
            if x.requires_grad:  # not with a frozen backbone; the head's own gradient stays whole
                x.register_hook(lambda gradient, weight=weight: weight * gradient)
        yield Update(
            {"classification": (weights * losses).sum(), "domain": domain.sum()},
            outputs=domain_outputs(batch, out),
            metrics={
                "lambda": strength,
                "domain_accuracy": torch.stack(told_apart).mean(),
                **{f"weight_{n}": w for n, w in zip(sources, weights, strict=True)},
            },
        )

    def weights(self, bounds: Tensor) -> Tensor:
        """bounds: R − λ·d of each source (S,) -> their weights (S,), which sum to 1."""
        if self.combine == "hard":
            return torch.zeros_like(bounds).scatter(0, bounds.argmax(0, keepdim=True), 1.0)
        return (bounds * (self.sharpness if self.combine == "soft" else 0.0)).softmax(0)
