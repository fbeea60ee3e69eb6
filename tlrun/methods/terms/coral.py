"""`terms=[coral]`: covariances of source and target alike (Sun and Saenko, Deep CORAL, 2016).

    weight · ‖C_S − C_T‖²_F / (4 D²),      C: covariance of the features (B, D), or of the logits

It couples the batch.
"""

from __future__ import annotations

from torch import Tensor

from tlrun.errors import at_least
from tlrun.losses.coral import coral_loss
from tlrun.methods.discrepancy import PLACES, check_choice, check_several
from tlrun.methods.method import Term, Update
from tlrun.methods.terms.adaptation import shown
from tlrun.models.net import Net


class Coral(Term):
    """weight: of the distance. layer: features | logits."""

    def __init__(self, weight: float = 1.0, layer: str = "logits") -> None:
        at_least(0, **{"terms.coral.weight": weight})
        check_choice("terms.coral.layer", layer, PLACES)
        self.weight, self.layer = weight, layer

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        source, target = (shown(update, "coral", d, self.layer) for d in ("source", "target"))
        check_several(source, target)
        return {"coral": self.weight * coral_loss(source, target)}
