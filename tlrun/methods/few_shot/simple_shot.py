"""SimpleShot: the nearest class mean, after centring on the base classes and scaling to length 1.

    min over f, h:  E_base CE(h(f(x)), y)                    plain batches, no episodes
    z(x) = (f(x) − m) / ‖f(x) − m‖,   m = mean of f over the images of the base classes
    class of x = argmin_k ‖z(x) − c_k‖²,   c_k = mean of z over the support of class k

Wang, Chao, Weinberger, van der Maaten, "SimpleShot: Revisiting Nearest-Neighbor Classification for
Few-Shot Learning", 2019 (its CL2N). The mean is found once, in a phase `centre` of no steps after
the training, and belongs to the model; no image of a novel class enters it. That phase is the last
one, so `select` has one row to choose from: the end of training.
x: (B, C, H, W); y: (B,) int64 of the base classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlrun.config.ranges import BelowOne, Count
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.problems.pair import Data
from tlrun.losses.distances import squared_distances
from tlrun.methods.base import Phase
from tlrun.methods.few_shot.baseline import Baseline
from tlrun.methods.few_shot.episodic import class_means
from tlrun.models.net import Net


class Centre(nn.Module):
    """m: (D,), zero until it is known."""

    mean: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))


class SimpleShot(Baseline):
    """images: at most so many images of the base classes make up the mean.

    label_smoothing: share in [0, 1) that is spread over the base classes.
    """

    joint = True

    def __init__(self, images: Count = 10_000, label_smoothing: BelowOne = 0.0) -> None:
        super().__init__(label_smoothing=label_smoothing)
        self.images = images

    def phases(self, data: Data) -> list[Phase]:
        return [*super().phases(data), Phase("centre", ("source",), steps=0)]

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        super().build(phase, net, data)
        net.add("centre", Centre(net.feature_dim))

    def start(self, phase: Phase, net: Net, data: Data) -> None:
        if phase.name != "centre":
            return
        base = data.stream_set("source")
        chosen = base.subset(permutation(len(base), "centre")[: self.images])
        mean: Tensor = net["centre"].mean  # type: ignore[assignment]
        net.eval()
        with torch.no_grad():
            total = torch.zeros_like(mean)
            for x, _y, _index in data.batches(chosen, mean.device):
                total += net(x, head=None).features.float().sum(0)
            mean.copy_(total / len(chosen))

    def classify(self, net: Net, query: Tensor, support: Tensor, y: Tensor) -> Tensor:
        return self.prototype_scores(net, query, self.prototypes(net, support, y))

    def prototypes(self, net: Net, support: Tensor, y: Tensor) -> Tensor:
        return class_means(self.centred(net, support), y)

    def prototype_scores(self, net: Net, query: Tensor, prototypes: Tensor) -> Tensor:
        return -squared_distances(self.centred(net, query), prototypes)

    @staticmethod
    def centred(net: Net, features: Tensor) -> Tensor:
        """z: (E, n, D) -> the same shape, of length 1."""
        mean: Tensor = net["centre"].mean  # type: ignore[assignment]
        return F.normalize(features - mean, dim=2)
