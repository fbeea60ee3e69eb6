"""ESZSL: an "embarrassingly simple" bilinear model in closed form.

Romera-Paredes, Torr, "An Embarrassingly Simple Approach to Zero-Shot Learning", ICML 2015, eq. 7:

    V = (X Xᵀ + γI)⁻¹ X Y Sᵀ (S Sᵀ + λI)⁻¹,      score of class z = x̂ᵀ V s_z

X (D, N): features, centred and scaled so that E‖x‖² = 1; Y (N, K): 1 for the class, −1 for the
others; S (A, K): rows of the training classes, of length 1. γ = gamma · N, so that it does not
depend on the number of images. gamma and lam null: chosen from powers of ten on the validation
classes, or on seen classes held out in turn (closed_form.py). Solved in float64 by `solve`.
Published T1 on AWA2's proposed split: 58.6, H 11.0 (Xian et al., TPAMI 2018).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor

from tlrun.config.ranges import Positive
from tlrun.methods.zero_shot.closed_form import ClosedForm

GAMMAS = [10.0**k for k in range(-5, 2)]
LAMBDAS = [10.0**k for k in range(-3, 3)]


class ESZSL(ClosedForm):
    """gamma: γ/N. lam: λ. null: chosen on held-out classes; `chosen` are then the two."""

    def __init__(self, gamma: Positive | None = None, lam: Positive | None = None) -> None:
        self.gamma, self.lam = gamma, lam
        self.default = (1.0 if gamma is None else gamma, 1.0 if lam is None else lam)

    def grid(self) -> list[Any]:
        gammas = GAMMAS if self.gamma is None else [self.gamma]
        return list(product(gammas, LAMBDAS if self.lam is None else [self.lam]))

    def solutions(self, x: Tensor, y: Tensor, rows: Tensor, grid: list[Any]) -> dict[Any, Tensor]:
        target = 2.0 * torch.nn.functional.one_hot(y, len(rows)).to(x.dtype) - 1.0
        gram, cross, semantic = x.T @ x, x.T @ target @ rows, rows.T @ rows
        left = {
            gamma: torch.linalg.solve(_penalised(gram, gamma * len(x)), cross)
            for gamma in dict.fromkeys(gamma for gamma, _ in grid)
        }
        return {
            (gamma, lam): torch.linalg.solve(_penalised(semantic, lam), left[gamma].T).T
            for gamma, lam in grid
        }


def _penalised(gram: Tensor, penalty: float) -> Tensor:
    """gram + penalty · I."""
    return gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
