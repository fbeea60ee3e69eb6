"""`terms=[bsp]`: batch spectral penalization (Chen et al., ICML 2019, eq. 6).

    weight · Σ_domains Σ_{i ≤ k} σ_i²(F),      F: (B, D) features of a domain, σ_i its i-th largest

singular value, over the target and, where the method shows it, the source. Domain-adversarial
training leaves its transferable information in the few largest directions; holding these down lets
the others tell classes apart. Made to join `dann` and its kin. Not `bss`, which shrinks the
smallest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlrun.config.ranges import Count, Weight
from tlrun.losses.spectral import squared_singular_values
from tlrun.methods.base import Term, Update
from tlrun.methods.terms.shown import each_domain
from tlrun.models.net import Net


class BSP(Term):
    """weight: β; the paper's 1e-4 is too much for `dann_cnn`. k: how many of the largest."""

    domains = ("target",)
    reads = ("features",)
    needs_images = False
    takes_soft_labels = True

    def __init__(self, weight: Weight = 1e-5, k: Count = 1) -> None:
        self.weight, self.k = weight, k

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        domains = each_domain(update, "bsp", "features")
        largest = [squared_singular_values(f)[: self.k].sum() for f in domains]
        return {"bsp": self.weight * torch.stack(largest).sum()}
