"""`terms=[im]`: information maximisation on the target (Liang et al., SHOT, ICML 2020, eq. 3-4).

    weight · [ mean H(p(x_T)) − diversity · H(mean p(x_T)) ]

`terms=[entropy]` with the spread over the classes switched on; Krause et al., NeurIPS 2010.
"""

from __future__ import annotations

from torch import Tensor

from tlrun.errors import at_least
from tlrun.losses.entropy import information_loss
from tlrun.methods.method import Term, Update
from tlrun.methods.terms.adaptation import shown
from tlrun.models.net import Net


class IM(Term):
    """weight: of the whole. diversity: of the second part."""

    def __init__(self, weight: float = 0.1, diversity: float = 1.0) -> None:
        at_least(0, **{"terms.im.weight": weight, "terms.im.diversity": diversity})
        self.weight, self.diversity = weight, diversity

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        logits = shown(update, "im", "target", "logits")
        return {"im": self.weight * information_loss(logits, self.diversity)}
