"""DAN: deep adaptation by a kernel mean distance on several layers.

    min over f, h of   E_S CE(h(f(x)), y) + λ · Σ_layers MMD²(S_l, T_l)

Long et al., "Learning transferable features with deep adaptation networks", ICML 2015, eq. 6. MMD²
has several Gaussian kernels around the batch's own scale, with equal weights (the paper learns them
by a quadratic program). S_l, T_l: (B, D_l), a layer's activations. Published for MMD on digits:
MNIST→MNIST-M 76.9 %, SVHN→MNIST 71.1 % (Bousmalis et al., "Domain separation networks", 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from tlrun.config.ranges import Depth, Distinct, Positive
from tlrun.errors import ConfigError
from tlrun.losses.mmd import mmd_loss
from tlrun.methods.discrepancy.layer_discrepancy import Discrepancy, activation, taps_of
from tlrun.models.net import Forward


@dataclass(eq=False)
class DAN(Discrepancy):
    """layers: "features", "logits" or stages ("classifier.fc1"), each with a distance of its own.

    kernels: k, for 2k + 1 kernels of 2^−k to 2^k times the bandwidth. bandwidth: mean | median of
    the squared distances, or a number (one kernel). estimator: biased | unbiased | linear.
    """

    distance_name = "mmd"

    layers: Annotated[Sequence[str], Distinct()] = ("features", "logits")
    kernels: Depth = 2
    bandwidth: Literal["mean", "median"] | Positive = "mean"
    estimator: Literal["biased", "unbiased", "linear"] = "unbiased"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.layers, str) or not self.layers:
            raise ConfigError("method.layers is a list of at least one layer: [features, logits]")
        self.taps = taps_of(self.layers)

    def distance(self, source: Forward, target: Forward) -> Tensor:
        distances = [
            mmd_loss(
                activation(source, layer),
                activation(target, layer),
                kernels=self.kernels,
                bandwidth=self.bandwidth,
                estimator=self.estimator,
            )
            for layer in self.layers
        ]
        return torch.stack(distances).sum()
