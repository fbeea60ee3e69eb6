"""`terms=[mmd]`: kernel mean distance of source and target (Long et al., DAN, ICML 2015).

    weight · MMD²(f(x_S), f(x_T)),      as tlrun/losses/mmd.py defines it

on the features (B, D) or the logits (B, K). It couples the batch.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from tlrun.config.ranges import Depth, Positive, Weight
from tlrun.losses.mmd import mmd_loss
from tlrun.methods.base import Term, Update
from tlrun.methods.discrepancy.layer_discrepancy import check_several
from tlrun.methods.terms.shown import shown
from tlrun.models.net import Net


class MMD(Term):
    """weight: of the distance. layer: features | logits. The others: as for `method=dan`."""

    domains = ("source", "target")
    needs_images = False
    takes_soft_labels = True

    def __init__(
        self,
        weight: Weight = 1.0,
        layer: Literal["features", "logits"] = "features",
        kernels: Depth = 2,
        bandwidth: Literal["mean", "median"] | Positive = "mean",
        estimator: Literal["biased", "unbiased", "linear"] = "unbiased",
    ) -> None:
        self.weight, self.layer = weight, layer
        self.reads = (layer,)
        self.kernels, self.bandwidth, self.estimator = kernels, bandwidth, estimator

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        source, target = (shown(update, "mmd", self.layer, d) for d in ("source", "target"))
        check_several(source, target)
        distance = mmd_loss(
            source,
            target,
            kernels=self.kernels,
            bandwidth=self.bandwidth,
            estimator=self.estimator,
        )
        return {"mmd": self.weight * distance}
