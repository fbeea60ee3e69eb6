"""ESZSL: an "embarrassingly simple" bilinear model in closed form.

Romera-Paredes, Torr, "An Embarrassingly Simple Approach to Zero-Shot Learning", ICML 2015, eq. 7:

    V = (X Xᵀ + γI)⁻¹ X Y Sᵀ (S Sᵀ + λI)⁻¹,      score of class z = x̂ᵀ V s_z

X (D, N): features, centred and scaled so that E‖x‖² = 1; Y (N, K): 1 for the class, −1 for the
others; S (A, K): rows of the training classes, of length 1. γ = gamma · N, so that it does not
depend on the number of images. gamma and lam null: chosen on the validation classes, from powers of
ten (1 and 1 without such classes). Solved in float64 by `solve`. Published T1 on AWA2's proposed
split: 58.6, H 11.0 (Xian et al., TPAMI 2018).
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor

from tlrun.config.ranges import Positive
from tlrun.methods.base import Phase
from tlrun.methods.zero_shot.class_attributes import (
    AttributeMethod,
    choose,
    mapping,
    measured,
    signatures,
)
from tlrun.models.net import Forward, Net

GAMMAS = [10.0**k for k in range(-5, 2)]
LAMBDAS = [10.0**k for k in range(-3, 3)]


class ESZSL(AttributeMethod):
    """gamma: γ/N. lam: λ. null: chosen on the validation classes; `chosen` are then the two."""

    def __init__(self, gamma: Positive | None = None, lam: Positive | None = None) -> None:
        self.gamma, self.lam = gamma, lam
        self.chosen = (gamma, lam)

    def start(self, phase: Phase, net: Net, data: Any) -> None:
        if phase.name != "mapping":
            return
        learned, x, y = measured(net, data)
        unit = signatures(net).unit.double()
        rows, x = unit[: len(data.facts.training)], learned.standardize(x)
        grid = list(
            product(
                GAMMAS if self.gamma is None else [self.gamma],
                LAMBDAS if self.lam is None else [self.lam],
            )
        )
        solved = {(g, m): solution(x, y, rows, g * len(x), m) for g, m in grid}

        def scorer(setting: Any, features: Tensor) -> Tensor:
            return learned.standardize(features) @ solved[setting] @ unit.T

        default = (
            1.0 if self.gamma is None else self.gamma,
            1.0 if self.lam is None else self.lam,
        )
        best = self.chosen = choose(grid, net, data, scorer, default)
        with torch.no_grad():
            learned.weight.copy_(solved[best])

    def scores(self, net: Net, out: Forward) -> Tensor | None:
        if "mapping" not in net.parts:
            return None
        return mapping(net).compare(out.features, signatures(net).unit)


def solution(x: Tensor, y: Tensor, rows: Tensor, gamma: float, lam: float) -> Tensor:
    """x: (N, D); y: (N,) in 0..K-1; rows: (K, A) -> V (D, A), all float64."""
    target = 2.0 * torch.nn.functional.one_hot(y, len(rows)).to(x.dtype) - 1.0
    left = x.T @ x + gamma * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    right = rows.T @ rows + lam * torch.eye(rows.shape[1], dtype=x.dtype, device=x.device)
    return torch.linalg.solve(right, torch.linalg.solve(left, x.T @ target @ rows).T).T
