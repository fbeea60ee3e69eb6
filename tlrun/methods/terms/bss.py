"""`terms=[bss]`: batch spectral shrinkage, against negative transfer.

    η · Σ_{i ≤ k} σ²_{−i}(F),     F: (B, D) features of the target's batch, σ_{−i} its i-th smallest

singular value (of min(B, D)). Directions of the features that carry little are the ones that do not
transfer; they are pushed to zero. Chen et al., "Catastrophic forgetting meets negative transfer",
NeurIPS 2019 (η = 1e-3, k = 1). The singular values couple the batch: with several processes, or
`trainer.accumulate`, they are those of each one's own piece.
"""

from __future__ import annotations

from torch import Tensor

from tlrun.config.ranges import Count, Weight
from tlrun.losses.spectral import squared_singular_values
from tlrun.methods.base import Term, Update
from tlrun.methods.terms.shown import shown
from tlrun.models.net import Net


class BSS(Term):
    """weight: η. k: how many of the smallest singular values."""

    domains = ("target",)
    reads = ("features",)
    needs_images = False
    takes_soft_labels = True

    def __init__(self, weight: Weight = 1e-3, k: Count = 1) -> None:
        self.weight, self.k = weight, k

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        features = shown(update, "bss", "features")
        return {"bss": self.weight * squared_singular_values(features)[-self.k :].sum()}
