"""SimCLR: a start without any labels from two views of each image, then fine-tuning or a probe.

    source phase:  min over f, g  NT-Xent( g(f(v(x))), g(f(v'(x))) ),     v, v' drawn per image
    target phase:  min over f, h  E_T CE(h(f(x)), y)                       from those weights

g is a projection (a hidden layer) that is not used afterwards. A view is a random crop (area from
`crop` to 1, aspect 3/4 to 4/3) brought back to size, and x · gain + offset with both drawn. Chen,
Kornblith, Norouzi and Hinton, "A simple framework for contrastive learning of visual
representations", ICML 2020 (colour and blur are for photographs: left out). No label of the source
is read for training. `transfer.freeze=[backbone]` makes the target phase a linear probe.
x: (B, C, H, W); y: (B,) int64.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlrun.config.ranges import AboveZeroToOne, BelowOne, Positive, Share, Width
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.losses.contrastive import nt_xent
from tlrun.methods.base import DomainOutput, Update
from tlrun.methods.fine_tuning.pretext import Pretext
from tlrun.models.heads import Head
from tlrun.models.net import Net


class SimCLR(Pretext):
    """temperature: T, above 0. dim: of the projection. crop: smallest area of a view, in (0, 1].

    strength: gain in 1 ± strength and offset ± strength / 2. label_smoothing: in the target phase.
    """

    pretext_head = "projection"

    def __init__(
        self,
        temperature: Positive = 0.5,
        dim: Width = 64,
        crop: AboveZeroToOne = 0.5,
        strength: Share = 0.4,
        label_smoothing: BelowOne = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        self.temperature, self.dim, self.crop, self.strength = temperature, dim, crop, strength

    def check_images(self, data: Data) -> None:
        if len(data.input_shape) != 3:
            raise ConfigError("method=simclr needs images, not ready features")

    def new_head(self, net: Net) -> nn.Module:
        return Head(net.feature_dim, self.dim, [net.feature_dim], False, 0.0)

    def pretext_step(self, net: Net, x: Tensor) -> Update:
        views = torch.cat([view(x, self.crop, self.strength) for _ in range(2)])
        out = net(views, head=self.pretext_head)
        assert out.logits is not None
        a, b = out.logits.chunk(2)
        return Update(
            {"contrastive": nt_xent(a, b, self.temperature)},
            outputs={"source": DomainOutput(views, out.features)},
        )


def view(x: Tensor, crop: float, strength: float) -> Tensor:
    """x: (B, C, H, W) -> the same shape: an own crop, gain and offset for each image."""
    count = len(x)

    def draw(low: float, high: float) -> Tensor:
        return torch.empty(count).uniform_(low, high)

    area, ratio = draw(crop, 1), draw(math.log(3 / 4), math.log(4 / 3)).exp()
    wide, high = ((area * r).sqrt().clamp_max(1) for r in (ratio, 1 / ratio))
    left, top = draw(-1, 1) * (1 - wide), draw(-1, 1) * (1 - high)
    zero = torch.zeros(count)
    theta = torch.stack([wide, zero, left, zero, high, top], 1).view(count, 2, 3).to(x)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    seen = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    gain, offset = draw(1 - strength, 1 + strength), draw(-strength / 2, strength / 2)
    return seen * gain.view(-1, 1, 1, 1).to(x) + offset.view(-1, 1, 1, 1).to(x)
