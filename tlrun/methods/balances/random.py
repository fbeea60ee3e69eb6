"""`balance=rlw`: random loss weighting: Σ_t w_t L_t, w = softmax(z), z ~ N(0, I) in every step.

Lin, Ye, Zhang and Tsang, "Reasonable effectiveness of random weighting", TMLR 2022. z is drawn from
torch's generator, so a resumed run draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tlrun.methods.balances.base import Balance
from tlrun.models.net import Net


class RLW(Balance):
    """No argument: the weights add up to 1."""

    several_processes = False  # each would draw its own

    def combine(
        self, losses: dict[str, Tensor], net: Net, parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        stacked = torch.stack(list(losses.values()))
        weights = torch.randn(len(losses)).softmax(0).to(stacked.device)
        return (weights * stacked).sum(), dict(zip(losses, weights, strict=True))
