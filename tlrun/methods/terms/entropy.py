"""`terms=[entropy]`, `terms=[im]`: confident predictions on the target, spread over the classes.

    weight · [ mean H(p(x_T)) − diversity · H(mean p(x_T)) ]

diversity = 0 is entropy minimisation (Grandvalet & Bengio, NeurIPS 2004). Above 0 it is information
maximisation (Krause et al., NeurIPS 2010; Liang et al., SHOT, ICML 2020, eq. 3-4), whose loss is
called "im"; conf/terms/im.yaml has diversity = 1. Needs a method that puts the target's logits into
`Update.outputs`.
"""

from __future__ import annotations

from torch import Tensor

from tlrun.config.ranges import Weight
from tlrun.losses.entropy import information_loss
from tlrun.methods.base import Term, Update
from tlrun.methods.terms.shown import shown
from tlrun.models.net import Net


class Entropy(Term):
    """weight: of the whole. diversity: of the second part, at least 0."""

    domains = ("target",)
    reads = ("logits",)
    needs_images = False
    takes_soft_labels = True

    def __init__(self, weight: Weight = 0.1, diversity: Weight = 0.0) -> None:
        self.weight, self.diversity = weight, diversity

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        name = "im" if self.diversity else "entropy"
        logits = shown(update, name, "logits")
        return {name: self.weight * information_loss(logits, self.diversity)}
