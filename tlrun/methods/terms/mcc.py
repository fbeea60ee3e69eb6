"""`terms=[mcc]`: minimum class confusion on the target (Jin et al., ECCV 2020).

    weight · Σ_{j ≠ j'} C_jj' / K,      C = the rows of Ŷᵀ W Ŷ scaled to 1,  Ŷ = softmax(Z_T / T)

Z_T: (B, K), the target's logits; W weighs sure predictions more (tlrun/losses/class_confusion.py).
It couples the batch, which should hold several examples of each class.
"""

from __future__ import annotations

from torch import Tensor

from tlrun.config.ranges import Positive, Weight
from tlrun.losses.class_confusion import class_confusion_loss
from tlrun.methods.base import Term, Update
from tlrun.methods.terms.shown import shown
from tlrun.models.net import Net


class MCC(Term):
    """weight: the paper's trade-off. temperature: T, above 0."""

    domains = ("target",)
    reads = ("logits",)
    needs_images = False
    takes_soft_labels = True

    def __init__(self, weight: Weight = 1.0, temperature: Positive = 2.5) -> None:
        self.weight, self.temperature = weight, temperature

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        logits = shown(update, "mcc", "logits")
        return {"mcc": self.weight * class_confusion_loss(logits, self.temperature)}
