"""MixStyle: new styles, by mixing the statistics of feature maps between sources.

    F ← γ · (F − μ(F)) / σ(F) + β,     γ = λ σ(F) + (1 − λ) σ(F'),     β = λ μ(F) + (1 − λ) μ(F')

μ, σ: mean and standard deviation over the positions of an image's channel, without gradient; F' is
the map of an image of another source, λ ~ Beta(α, α) for each image. With probability p in a
forward pass of training, at each of `stages`. Zhou, Yang, Qiao and Xiang, "Domain generalization
with MixStyle", ICLR 2021, eq. 2-6, the variant with domain labels; published: PACS, ResNet-18,
83.7 %. x: (B, C, H, W) of each source; F: (B, C', H', W'); y: (B,) int64.
Preset: `conf/experiment/mnist_usps_mnistm/mixstyle.yaml`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tlrun.config.ranges import Positive, Share
from tlrun.errors import ConfigError
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.batch_norm_forward import domain_outputs
from tlrun.methods.generalisation.multi_source import MultiSource, risks
from tlrun.models.net import Net

EPS = 1e-6


class MixStyle(MultiSource):
    """stages: where, by name or pattern (the paper: the early ones, never the last). p: how often.
    alpha: of the Beta distribution; small = mostly one of the two styles."""

    needs_images = False
    modes = ("joint",)  # the images of a forward pass must be of all sources

    def __init__(
        self, stages: Sequence[str] = ("backbone[:-1]",), p: Share = 0.5, alpha: Positive = 0.1
    ) -> None:
        self.stages, self.p, self.alpha = tuple(stages), p, alpha
        self.taps = self.stages

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        with self.mixing(net, len(batch)):
            out = self.forward(net, batch)
        yield Update(
            {"classification": risks(out, batch).mean()}, outputs=domain_outputs(batch, out)
        )

    @contextmanager
    def mixing(self, net: Net, sources: int) -> Iterator[None]:
        """Within it, a forward pass of all sources mixes; `predict` knows nothing of this."""

        def mix(_module: nn.Module, _inputs: object, maps: Tensor) -> Tensor:
            if maps.ndim != 4:
                raise ConfigError(
                    f"method.stages={list(self.stages)}: mixstyle needs feature maps (B, C, H, W), "
                    f"not {tuple(maps.shape)}"
                )
            if torch.rand(()) >= self.p:
                return maps
            share = torch.distributions.Beta(self.alpha, self.alpha).sample((len(maps), 1, 1, 1))
            return mixed(maps, partners(len(maps), sources), share)

        chosen = net.select(self.stages)
        if not chosen:
            raise ConfigError(f"method.stages={list(self.stages)} are no stage of this backbone")
        hooks = [net.module_of(name).register_forward_hook(mix) for name in chosen]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def mixed(maps: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """maps: (B, C, H, W), partner: (B,) int64, share λ: (B, 1, 1, 1) -> (B, C, H, W)."""
    x, share = maps.float(), share.to(maps.device)
    mean = x.mean((2, 3), keepdim=True).detach()
    std = (x.var((2, 3), correction=0, keepdim=True) + EPS).sqrt().detach()
    partner = partner.to(maps.device)
    new_mean = share * mean + (1 - share) * mean[partner]
    new_std = share * std + (1 - share) * std[partner]
    return ((x - mean) / std * new_std + new_mean).to(maps.dtype)


def partners(count: int, sources: int) -> Tensor:
    """For each of `count` images, of `sources` sources in equal blocks, one of another source.

    The blocks move on by a random number of places and are shuffled within: (count,) int64.
    """
    size = count // sources
    places = int(torch.randint(1, sources, ()))
    blocks = [torch.randperm(size) + size * ((k + places) % sources) for k in range(sources)]
    return torch.cat(blocks)
