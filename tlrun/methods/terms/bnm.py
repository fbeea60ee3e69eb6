"""`terms=[bnm]`: batch nuclear-norm maximisation on the target (Cui et al., CVPR 2020).

    −weight · ‖softmax(Z_T)‖_* / B,      Z_T: (B, K), the target's logits

Sure and diverse predictions at once. It couples the batch.
"""

from __future__ import annotations

from torch import Tensor

from tlrun.config.ranges import Weight
from tlrun.losses.nuclear_norm import nuclear_norm_loss
from tlrun.methods.base import Term, Update
from tlrun.methods.terms.shown import shown
from tlrun.models.net import Net


class BNM(Term):
    """weight: the paper's λ."""

    domains = ("target",)
    reads = ("logits",)
    needs_images = False
    takes_soft_labels = True

    def __init__(self, weight: Weight = 1.0) -> None:
        self.weight = weight

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        return {"bnm": self.weight * nuclear_norm_loss(shown(update, "bnm", "logits"))}
