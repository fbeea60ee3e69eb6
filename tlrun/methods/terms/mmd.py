"""`terms=[mmd]`: kernel mean distance of source and target (Long et al., DAN, ICML 2015).

    weight · MMD²(f(x_S), f(x_T)),      as tlrun/losses/mmd.py defines it

on the features (B, D) or the logits (B, K). It couples the batch.
"""

from __future__ import annotations

from torch import Tensor

from tlrun.errors import at_least
from tlrun.losses.mmd import mmd_loss
from tlrun.methods.discrepancy import PLACES, check_choice, check_mmd, check_several
from tlrun.methods.method import Term, Update
from tlrun.methods.terms.adaptation import shown
from tlrun.models.net import Net


class MMD(Term):
    """weight: of the distance. layer: features | logits. The others: as for `method=dan`."""

    def __init__(
        self,
        weight: float = 1.0,
        layer: str = "features",
        kernels: int = 2,
        bandwidth: str | float = "mean",
        estimator: str = "unbiased",
    ) -> None:
        at_least(0, **{"terms.mmd.weight": weight})
        check_choice("terms.mmd.layer", layer, PLACES)
        check_mmd("terms.mmd", kernels, estimator, bandwidth=bandwidth)
        self.weight, self.layer = weight, layer
        self.kernels, self.bandwidth, self.estimator = kernels, bandwidth, estimator

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        source, target = (shown(update, "mmd", d, self.layer) for d in ("source", "target"))
        check_several(source, target)
        distance = mmd_loss(
            source,
            target,
            kernels=self.kernels,
            bandwidth=self.bandwidth,
            estimator=self.estimator,
        )
        return {"mmd": self.weight * distance}
