"""ALE: attribute label embedding, the bilinear model with a rank-weighted hinge.

Akata, Perronnin, Harchaoui, Schmid, "Label-Embedding for Image Classification", TPAMI 38 (2016),
eq. 10-12:

    F(x, y) = x̂ᵀ W φ(y),   loss = (l_r / r) Σ_{y ≠ y_n} max(0, margin + F(x_n, y) − F(x_n, y_n))

r: how many classes violate the margin; l_r = Σ_{i ≤ r} 1/i, so that the top of the list counts
most. Phases, shapes and scaling as in DeViSE (devise.py). Published T1 on AWA2's proposed split:
62.5, U 14.0, S 81.8, H 23.9 (Xian et al., TPAMI 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlrun.methods.zero_shot.devise import DeViSE


class ALE(DeViSE):
    """margin: by which the right class must win, in units of F."""

    def hinge(self, violation: Tensor) -> Tensor:
        ranks = torch.arange(1, violation.shape[1] + 1, device=violation.device)
        harmonic = torch.cat([violation.new_zeros(1), ranks.reciprocal().to(violation).cumsum(0)])
        rank = (violation > 0).sum(1)
        weight = harmonic[rank] / rank.clamp_min(1)
        return (weight * violation.sum(1)).mean()
