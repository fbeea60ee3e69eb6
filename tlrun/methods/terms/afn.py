"""`terms=[afn]`: adaptive feature norm (Xu et al., ICCV 2019).

    stepwise (SAFN)    weight · Σ_domains mean (‖f(x)‖.detach() + Δr − ‖f(x)‖)²
    hard (HAFN)        weight · Σ_domains (mean ‖f(x)‖ − R)²

over the target and, where the method shows it, the source. The stepwise value is Δr² for each
domain at all times; watch the accuracy, not this loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlrun.config.ranges import NotNegative, Weight
from tlrun.losses.feature_norm import hard_norm_loss, stepwise_norm_loss
from tlrun.methods.base import Term, Update
from tlrun.methods.terms.shown import each_domain
from tlrun.models.net import Net


class AFN(Term):
    """weight: λ. step: Δr of the stepwise form. radius: R of the hard form; None = stepwise."""

    domains = ("target",)
    reads = ("features",)
    needs_images = False
    takes_soft_labels = True

    def __init__(
        self, weight: Weight = 0.05, step: NotNegative = 1.0, radius: NotNegative | None = None
    ) -> None:
        self.weight, self.step, self.radius = weight, step, radius

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        losses = [self.of_one(f) for f in each_domain(update, "afn", "features")]
        return {"afn": self.weight * torch.stack(losses).sum()}

    def of_one(self, features: Tensor) -> Tensor:
        """features: (B, D) of one domain -> scalar."""
        if self.radius is None:
            return stepwise_norm_loss(features, self.step)
        return hard_norm_loss(features, self.radius)
