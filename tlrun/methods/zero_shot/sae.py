"""SAE: semantic autoencoder.

Kodirov, Xiang, Gong, "Semantic Autoencoder for Zero-Shot Learning", CVPR 2017, eq. 4-6:

    min_W ‖X − WᵀS‖² + λ‖WX − S‖²     =>     S Sᵀ W + λ W X Xᵀ = (1 + λ) S Xᵀ

X (D, N): features, centred and scaled so that E‖x‖² = 1; S (A, N): the row of each image's class,
of length 1; W (A, D). A Sylvester equation with symmetric sides, so two eigendecompositions solve
it: with SSᵀ = U diag(a) Uᵀ and λXXᵀ = V diag(b) Vᵀ, W = U [UᵀCV / (a + b)] Vᵀ. Image and class are
compared in attribute space: score = cos(Wx, s_z). lam null: chosen on the validation classes (1
without). Published T1 on AWA2's proposed split: 54.1, H 2.2 (Xian et al., TPAMI 2018).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tlrun.config.ranges import Positive
from tlrun.methods.base import Phase
from tlrun.methods.zero_shot.class_attributes import AttributeMethod, choose, measured, signatures
from tlrun.models.net import Forward, Net

LAMBDAS = [10.0**k for k in range(-3, 4)]


class SAE(AttributeMethod):
    """lam: λ; null: chosen on the validation classes."""

    def __init__(self, lam: Positive | None = None) -> None:
        self.lam = lam

    def start(self, phase: Phase, net: Net, data: Any) -> None:
        if phase.name != "mapping":
            return
        mapping, x, y = measured(net, data)
        unit, x = signatures(net).unit.double(), mapping.standardize(x)
        grid = LAMBDAS if self.lam is None else [self.lam]
        solved = {lam: solution(x, unit[y], lam) for lam in grid}

        def scorer(lam: Any, features: Tensor) -> Tensor:
            return F.normalize(mapping.standardize(features) @ solved[lam].T, dim=1) @ unit.T

        best = choose(grid, net, data, scorer, 1.0)
        with torch.no_grad():
            mapping.weight.copy_(solved[best].T)

    def scores(self, net: Net, out: Forward) -> Tensor | None:
        if "mapping" not in net.parts:
            return None
        return F.normalize(net["mapping"](out.features), dim=1) @ signatures(net).unit.T


def solution(x: Tensor, s: Tensor, lam: float) -> Tensor:
    """x: (N, D); s: (N, A); float64 -> W (A, D). Directions that neither side sees are 0."""
    a, u = torch.linalg.eigh(s.T @ s)
    b, v = torch.linalg.eigh(lam * x.T @ x)
    inner = u.T @ ((1 + lam) * s.T @ x) @ v
    total = a[:, None] + b[None, :]
    empty = total < 1e-12 * total.max()
    return u @ torch.where(empty, 0.0, inner / torch.where(empty, 1.0, total)) @ v.T
