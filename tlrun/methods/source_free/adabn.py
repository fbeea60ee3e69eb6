"""AdaBN: the source's weights with the target's batch statistics.

    BN_T(x) = γ · (x − μ_T) / sqrt(σ²_T + ε) + β,      μ_T, σ²_T over the target's training images

γ, β and all other weights stay those of the source, to the bit. Li, Wang, Shi, Hou and Liu,
"Adaptive batch normalization for practical domain adaptation", Pattern Recognition 80 (2018)
(ICLR 2017 workshop). No labels, no gradient, no image of the source. They report Office-31 and
Caltech-Bing, not digits.

One pass in random batches of about 256. While it runs each norm normalises by its own batch, as in
training; μ and σ² are then those of all values that it was given, exactly (not a mean over
batches). With `batch_norm=per_domain` they go to the target's buffers, and the source's figures
keep the source's statistics. x: (B, C, H, W); a norm's input: (B, C, ...), statistics: (C,).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tlrun.data.pipeline.hashing import permutation
from tlrun.data.pipeline.streams import batches
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.methods.base import Phase
from tlrun.methods.source_free.source_hypothesis import SourceFree, norms_of
from tlrun.models.net import Net

BATCH = 256


class AdaBN(SourceFree):
    """label_smoothing: share in [0, 1) that is spread over all classes, in the source phase."""

    adapting = replace(SourceFree.adapting, name="adapt", steps=0, terms=False)

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        super().build(phase, net, data)
        if self.frozen_statistics:
            raise ConfigError(
                "adabn replaces batch statistics, and batch_norm=frozen keeps them: leave it out"
            )
        norms_of(net, phase.frozen, "adabn")  # a clear error before anything is trained
        if phase.name == self.adapting.name and phase.steps:
            raise ConfigError(
                f"phases.adapt.steps={phase.steps}: adabn takes no steps there, only 0"
            )

    def start(self, phase: Phase, net: Net, data: Data) -> None:
        super().start(phase, net, data)
        if phase.name == self.adapting.name:
            adapt_statistics(net, norms_of(net, phase.frozen, "adabn"), data)


@torch.no_grad()
def adapt_statistics(net: Net, norms: list[Any], data: Data) -> None:
    """Replace the running statistics of `norms` by the target's; the rest is in eval mode."""
    examples = data.stream_set("target")
    count = len(examples)
    examples = examples.subset(permutation(count, "adabn"))  # a set may be sorted by class
    size = math.ceil(count / math.ceil(count / BATCH))  # no small batch at the end
    seen = {norm: Moments() for norm in norms}
    hooks = [norm.register_forward_pre_hook(lambda n, x: seen[n].add(x[0])) for norm in norms]
    net.eval()
    for norm in norms:
        norm.train()
    try:
        for x, _, _ in batches(examples, data.preprocess, next(net.parameters()).device, size):
            net(x, "target")
    finally:
        for hook in hooks:
            hook.remove()
        net.eval()
    for norm in norms:
        seen[norm].write(norm, getattr(norm, "per_domain", False))


class Moments:
    """Mean and variance by channel of all that was added, merged batch by batch.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979: no difference of large squares, so float32 does.
    """

    def __init__(self) -> None:
        self.count, self.mean, self.square = 0, torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor) -> None:
        """x: (B, C, ...)."""
        values = x.float().transpose(0, 1).flatten(1)
        more, mean = values.shape[1], values.mean(1)
        square = (values - mean[:, None]).square().sum(1)
        apart, total = mean - self.mean.to(mean), self.count + more
        self.square = self.square.to(mean) + square + apart.square() * self.count * more / total
        self.mean, self.count = self.mean.to(mean) + apart * more / total, total

    def write(self, norm: Any, per_domain: bool) -> None:
        """Into the running statistics; the variance is unbiased, as torch's is."""
        prefix = "target_" if per_domain else ""
        getattr(norm, f"{prefix}running_mean").copy_(self.mean)
        getattr(norm, f"{prefix}running_var").copy_(self.square / max(self.count - 1, 1))
