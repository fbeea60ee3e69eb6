"""`balance=stch`: smooth Tchebycheff scalarisation: the worst task counts, and those near it.

    T μ log( 1/T Σ_t exp(f_t / μ) ),     f_t = log(L_t / n_t)

n_t is the mean of L_t over the first `warmup` steps, in which Σ_t log L_t is minimised, so f_t says
how far each loss has fallen. μ → 0 is the maximum, μ → ∞ the sum of the f_t; the gradient of f_t
weighs T softmax_t(f / μ). Lin, Zhang, Zhang, Zhang, Wang and Zhang, "Smooth Tchebycheff
scalarization for multi-objective optimization", ICML 2024, whose f_t are λ_t (L_t − z_t) with
preferences λ and an ideal point z; the logarithm makes losses of unlike scales comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tlrun.config.ranges import Positive, Size
from tlrun.methods.balances.base import Balance
from tlrun.models.net import Net

SMALLEST = 1e-12


class STCH(Balance):
    """mu: above 0, smaller = closer to the worst task alone. warmup: steps, 0 = from the start with
    n = 1. The weights in the log are those of the gradient of L_t."""

    several_processes = False  # each would know its own losses alone

    def __init__(self, mu: Positive = 1.0, warmup: Size = 100) -> None:
        self.mu, self.warmup = mu, warmup
        self.steps = 0
        self.sum: Tensor | None = None  # (T,) of the steps of the warm-up

    def combine(
        self, losses: dict[str, Tensor], net: Net, parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        stacked = torch.stack(list(losses.values())).clamp_min(SMALLEST)
        count = len(losses)
        if self.steps < self.warmup:
            now = stacked.detach()
            self.sum = now if self.sum is None else self.sum.to(now.device) + now
            self.steps += 1
            value, shares = stacked.log().sum(), torch.ones_like(stacked)
        else:
            mean = 1.0 if self.sum is None else self.sum.to(stacked.device) / self.steps
            scaled = (stacked / mean).log() / self.mu
            value = count * self.mu * (scaled.logsumexp(0) - torch.tensor(float(count)).log())
            shares = count * scaled.softmax(0)
        weights = (shares / stacked).detach()
        return value, dict(zip(losses, weights, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "sum": self.sum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.sum = state["steps"], state["sum"]
