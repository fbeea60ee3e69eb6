"""`terms=[vat]`: predictions on the target that hold in the worst direction (Miyato et al. 2018).

    weight · mean KL( p(x_T) ‖ p(x_T + r_adv) ),      ‖r_adv‖ = radius for each example

Miyato et al., "Virtual adversarial training", TPAMI 2018 (tlrun/losses/virtual_adversarial.py);
Shu et al., "A DIRT-T approach to unsupervised domain adaptation" (VADA), ICLR 2018, use it on both
domains with a radius of 3.5. x_T: (B, C, H, W) as the net gets it, after normalisation, and so is
the radius. The term forwards the batch itself, iterations + 2 times, normalised by the target's
batch statistics and without dropout; the running statistics stay put (models/repeatable.py).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlrun.config.ranges import NotNegative, Positive, Repeats, Weight
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.methods.base import Term, Update
from tlrun.methods.consistency.smoothness import net_vat
from tlrun.methods.terms.shown import shown
from tlrun.models.net import Net

STILL = (
    "terms=[vat] judges images by backbone and classifier, of which nothing is trained in this "
    "phase"
)


class VAT(Term):
    """weight: of the divergence. radius: length of r. xi: of the probing step, in the same units.
    iterations: of the power method."""

    domains = ("target",)
    reads = ("logits",)
    takes_soft_labels = True

    def __init__(
        self,
        weight: Weight = 0.1,
        radius: NotNegative = 3.5,
        xi: Positive = 1.0,
        iterations: Repeats = 1,
    ) -> None:
        self.weight, self.radius, self.xi, self.iterations = weight, radius, xi, iterations

    def check(self, net: Net, data: Data) -> None:
        """It judges images by backbone and classifier, of which something has to train."""
        if net.main_head not in net.parts:
            raise ConfigError("terms=[vat] judges images by a classifier, which this method lacks")
        path = [stage for part in ("backbone", net.main_head) for stage in net.path(part)]
        if not any(p.requires_grad for stage in path for p in net.parameters_in(stage)):
            raise ConfigError(STILL)

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        shown(update, "vat", "logits")  # the main head judges target images
        value = net_vat(
            net,
            update.outputs["target"].x,
            "target",
            radius=self.radius,
            xi=self.xi,
            iterations=self.iterations,
        )
        if not value.requires_grad and torch.is_grad_enabled():
            raise ConfigError(STILL)
        return {"vat": self.weight * value}
