"""JAN: joint adaptation of features and predictions by one kernel mean distance.

    min over f, h of   E_S CE(h(f(x)), y) + λ · JMMD²(S, T),      k = k_f(f, f') · k_p(p, p')

Long et al., "Deep transfer learning with joint adaptation networks", ICML 2017, eq. 10. The product
of the kernels on the features f (B, D) and on the softmax outputs p (B, K) compares their joint
distributions: a class of the source is to meet the same class of the target. The adversarial
variant, JAN-A, is not here. No published figure on digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tlrun.config.ranges import Depth, Positive
from tlrun.losses.mmd import joint_mmd_loss
from tlrun.methods.discrepancy.layer_discrepancy import Discrepancy, activation
from tlrun.models.net import Forward


@dataclass(eq=False)
class JAN(Discrepancy):
    """kernels, bandwidth, estimator: as for DAN, on the features.

    softmax_bandwidth: that of the predictions; the authors' code fixes it to 1.68 (one kernel).
    """

    distance_name = "jmmd"

    kernels: Depth = 2
    bandwidth: Literal["mean", "median"] | Positive = "mean"
    softmax_bandwidth: Positive = 1.68
    estimator: Literal["biased", "unbiased", "linear"] = "unbiased"

    def __post_init__(self) -> None:
        super().__post_init__()

    def distance(self, source: Forward, target: Forward) -> Tensor:
        return joint_mmd_loss(
            layers_of(source),
            layers_of(target),
            kernels=self.kernels,
            bandwidths=(self.bandwidth, self.softmax_bandwidth),
            estimator=self.estimator,
        )


def layers_of(out: Forward) -> list[Tensor]:
    """Features (B, D) and probabilities (B, K)."""
    return [activation(out, "features"), activation(out, "logits").softmax(1)]
