"""`terms=[mcc]`: minimum class confusion on the target (Jin et al., ECCV 2020).

    weight · Σ_{j ≠ j'} C_jj' / K,      C = the rows of Ŷᵀ W Ŷ scaled to 1,  Ŷ = softmax(Z_T / T)

Z_T: (B, K), the target's logits; W weighs sure predictions more (tlrun/losses/class_confusion.py).
It couples the batch, which should hold several examples of each class.
"""

from __future__ import annotations

from torch import Tensor

from tlrun.errors import ConfigError, at_least
from tlrun.losses.class_confusion import class_confusion_loss
from tlrun.methods.method import Term, Update
from tlrun.methods.terms.adaptation import shown
from tlrun.models.net import Net


class MCC(Term):
    """weight: the paper's trade-off. temperature: T, above 0."""

    def __init__(self, weight: float = 1.0, temperature: float = 2.5) -> None:
        at_least(0, **{"terms.mcc.weight": weight})
        if not temperature > 0:
            raise ConfigError(f"terms.mcc.temperature={temperature:g} must be above 0")
        self.weight, self.temperature = weight, temperature

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        logits = shown(update, "mcc", "target", "logits")
        return {"mcc": self.weight * class_confusion_loss(logits, self.temperature)}
