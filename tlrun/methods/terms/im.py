"""`terms=[im]`: information maximisation on the target (Liang et al., SHOT, ICML 2020, eq. 3-4).

    weight · [ mean H(p(x_T)) − diversity · H(mean p(x_T)) ]

`terms=[entropy]` with the spread over the classes switched on; Krause et al., NeurIPS 2010.
"""

from __future__ import annotations

from torch import Tensor

from tlrun.config.ranges import Weight
from tlrun.losses.entropy import information_loss
from tlrun.methods.base import Term, Update
from tlrun.methods.terms.adaptation import shown
from tlrun.models.net import Net


class IM(Term):
    """weight: of the whole. diversity: of the second part."""

    def __init__(self, weight: Weight = 0.1, diversity: Weight = 1.0) -> None:
        self.weight, self.diversity = weight, diversity

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        logits = shown(update, "im", "target", "logits")
        return {"im": self.weight * information_loss(logits, self.diversity)}
