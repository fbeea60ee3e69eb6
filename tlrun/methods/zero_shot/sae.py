"""SAE: semantic autoencoder.

Kodirov, Xiang, Gong, "Semantic Autoencoder for Zero-Shot Learning", CVPR 2017, eq. 4-6:

    min_W ‖X − WᵀS‖² + λ‖WX − S‖²     =>     S Sᵀ W + λ W X Xᵀ = (1 + λ) S Xᵀ

X (D, N): features, centred and scaled so that E‖x‖² = 1; S (A, N): the row of each image's class,
of length 1; W (A, D). A Sylvester equation with symmetric sides, so two eigendecompositions solve
it: with SSᵀ = U diag(a) Uᵀ and λXXᵀ = V diag(b) Vᵀ, W = U [UᵀCV / (a + b)] Vᵀ. Image and class are
compared in attribute space: score = cos(Wx, s_z). lam null: chosen on the validation classes, or on
seen classes held out in turn (closed_form.py). Published T1 on AWA2's proposed split: 54.1, H 2.2
(Xian et al., TPAMI 2018).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tlrun.config.ranges import Positive
from tlrun.methods.zero_shot.closed_form import ClosedForm

LAMBDAS = [10.0**k for k in range(-3, 4)]


class SAE(ClosedForm):
    """lam: λ; null: chosen on held-out classes."""

    default = 1.0

    def __init__(self, lam: Positive | None = None) -> None:
        self.lam = lam

    def grid(self) -> list[Any]:
        return LAMBDAS if self.lam is None else [self.lam]

    def solutions(self, x: Tensor, y: Tensor, rows: Tensor, grid: list[Any]) -> dict[Any, Tensor]:
        return {lam: solution(x, rows[y], lam).T for lam in grid}

    def compare(self, mapped: Tensor, rows: Tensor) -> Tensor:
        return F.normalize(mapped, dim=1) @ rows.T


def solution(x: Tensor, s: Tensor, lam: float) -> Tensor:
    """x: (N, D); s: (N, A); float64 -> W (A, D). Directions that neither side sees are 0."""
    a, u = torch.linalg.eigh(s.T @ s)
    b, v = torch.linalg.eigh(lam * x.T @ x)
    inner = u.T @ ((1 + lam) * s.T @ x) @ v
    total = a[:, None] + b[None, :]
    empty = total < 1e-12 * total.max()
    return u @ torch.where(empty, 0.0, inner / torch.where(empty, 1.0, total)) @ v.T
