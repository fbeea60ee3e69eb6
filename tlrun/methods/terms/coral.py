"""`terms=[coral]`: covariances of source and target alike (Sun and Saenko, Deep CORAL, 2016).

    weight · ‖C_S − C_T‖²_F / (4 D²),      C: covariance of the features (B, D), or of the logits

It couples the batch.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from tlrun.config.ranges import Weight
from tlrun.losses.coral import coral_loss
from tlrun.methods.base import Term, Update
from tlrun.methods.discrepancy.layer_discrepancy import check_several
from tlrun.methods.terms.shown import shown
from tlrun.models.net import Net


class Coral(Term):
    """weight: of the distance. layer: features | logits."""

    domains = ("source", "target")
    needs_images = False
    takes_soft_labels = True

    def __init__(
        self, weight: Weight = 1.0, layer: Literal["features", "logits"] = "logits"
    ) -> None:
        self.weight, self.layer = weight, layer
        self.reads = (layer,)

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        source, target = (shown(update, "coral", self.layer, d) for d in ("source", "target"))
        check_several(source, target)
        return {"coral": self.weight * coral_loss(source, target)}
