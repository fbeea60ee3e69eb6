"""`balance=nash_mtl`: the tasks bargain for the direction of the shared parameters.

    update  Σ_t α_t g_t,     G Gᵀ α = 1/α,  α > 0

g_t, the rows of G (T, n), are the gradients of the task losses; the equation is the Nash bargaining
solution, which no scale of a loss can move. Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik
and Fetaya, "Multi-task learning as a bargaining game", ICML 2022, claim 3.1. They solve it by a
sequence of convex programs; α is the minimum of ½ αᵀGGᵀα − Σ log α_t, which is convex, so Newton
steps find it to the last digit, without a solver. As in their code the update is no longer than
`max_norm`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tlrun.config.ranges import NotNegative
from tlrun.methods.balances.gradients import JacobianBalance

STEPS, SMALLEST = 50, 1e-8


class NashMTL(JacobianBalance):
    """max_norm: of the update of the shared parameters, 0 = as long as it comes."""

    def __init__(self, max_norm: NotNegative = 1.0) -> None:
        self.max_norm = max_norm

    def aggregate(self, jacobian: Tensor) -> Tensor:
        update = bargain(jacobian @ jacobian.T).to(jacobian.dtype) @ jacobian
        if self.max_norm:
            update = update * (self.max_norm / update.norm().clamp_min(SMALLEST)).clamp_max(1)
        return update


def bargain(gram: Tensor) -> Tensor:
    """gram: G Gᵀ (T, T) -> α (T,) float64, on its device, with gram @ α = 1/α.

    A task whose gradient is 0 has no part in it: α_t = 0. Newton's steps of a self-concordant
    function are damped by its decrement (Boyd and Vandenberghe, 2004, section 9.6).
    """
    device, gram = gram.device, gram.double().cpu()
    alpha = torch.zeros(len(gram), dtype=torch.float64)
    pulls = gram.diagonal() > 1e-30
    if not bool(pulls.any()):
        return alpha.to(device)
    k = gram[pulls][:, pulls]
    scale = k.diagonal().rsqrt()
    k = scale[:, None] * k * scale  # of unit gradients: α there is α / scale here
    a = torch.full((len(k),), len(k) ** -0.5, dtype=torch.float64)
    for _ in range(STEPS):
        slope = k @ a - 1 / a
        step = torch.linalg.solve(k + torch.diag(a**-2), slope)
        decrement = float((slope @ step).clamp_min(0).sqrt())
        a = a - step / (1 + decrement) if decrement > 0.25 else a - step
        if decrement < 1e-10:
            break
    alpha[pulls] = scale * a
    return alpha.to(device)
