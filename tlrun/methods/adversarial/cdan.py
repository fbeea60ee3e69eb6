"""CDAN: the domain head sees features and prediction together.

Long et al., "Conditional Adversarial Domain Adaptation", NeurIPS 2018:

    min_(f,h) max_d  E_S CE(h(f(x)), y)  −  λ·½·[ E_S w BCE(d(f⊗g), 1) + E_T w BCE(d(f⊗g), 0) ]

with g = softmax(h(f(x))) (B, K), from which no gradient returns, as in the authors' code. f ⊗ g is
(B, D·K), or (R_f f) ⊙ (R_g g) / √d with fixed Gaussian R where that is large. w = 1 for CDAN, and
w = 1 + e^(−H(g)) divided by its sum over the domain's batch for CDAN+E. All else is DANN's.
Published for CDAN+E: MNIST→USPS 95.6, USPS→MNIST 98.0, SVHN→MNIST 89.2 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tlrun.config.ranges import Width
from tlrun.data.problems.pair import Data
from tlrun.losses.adversarial import (
    RandomisedMultilinear,
    domain_accuracy,
    domain_loss,
    entropy_weights,
    multilinear,
    reverse_gradient,
)
from tlrun.methods.adversarial.dann import DANN
from tlrun.methods.base import Phase
from tlrun.models.net import Forward, Net

LARGEST = 4096  # entries of f ⊗ g, the authors' limit; more of them are projected


@dataclass(eq=False)
class CDAN(DANN):
    """entropy: the weights of CDAN+E. randomised: project f ⊗ g to randomised_dim entries; auto =
    where it has more than 4096. The other arguments are DANN's.
    """

    entropy: bool = True
    randomised: Literal["auto", "true", "false"] | bool = "auto"
    randomised_dim: Width = 1024

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("classifier", net.new_head(data.num_classes))
        width = self.attached_width(net)
        joint = width * data.num_classes
        asked = str(self.randomised).lower()
        if asked == "true" or (asked == "auto" and joint > LARGEST):
            joint = self.randomised_dim
            net.add("multilinear", RandomisedMultilinear(width, data.num_classes, joint))
        self.add_domain_head(net, joint)

    def domain_losses(
        self,
        net: Net,
        out: Mapping[str, Forward],
        strength: float,
        source_weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Weights of its own take the place of `source_weights`."""
        domains = (out["source"], out["target"])
        joint = [self.conditioned(net, one) for one in domains]
        logits = net["domain_head"](reverse_gradient(torch.cat(joint), strength))
        source, target = logits.split([len(j) for j in joint])
        weights = [entropy_weights(_logits(one)) for one in domains] if self.entropy else []
        return domain_loss(source, target, *weights), domain_accuracy(source, target)

    def conditioned(self, net: Net, out: Forward) -> Tensor:
        """f ⊗ g (B, D·K), or its projection (B, randomised_dim)."""
        combine = net["multilinear"] if "multilinear" in net.parts else multilinear
        joint: Tensor = combine(self._attached(out), _logits(out).detach().softmax(1))
        return joint


def _logits(out: Forward) -> Tensor:
    assert out.logits is not None
    return out.logits
