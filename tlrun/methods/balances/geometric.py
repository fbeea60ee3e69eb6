"""`balance=gls`: geometric loss strategy: (Π_t L_t)^(1/T), which no scale of a loss can move.

Chennupati et al., "MultiNet++", CVPR workshops 2019. Computed as exp of the mean log; a loss at 0
counts as 1e-12.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tlrun.methods.balances.base import Balance
from tlrun.models.net import Net

SMALLEST = 1e-12


class GLS(Balance):
    """No argument. The weight in the log is that of the gradient, GLS / (T L_t)."""

    def combine(
        self, losses: dict[str, Tensor], net: Net, parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        stacked = torch.stack(list(losses.values())).clamp_min(SMALLEST)
        value = stacked.log().mean().exp()
        weights = (value / (len(losses) * stacked)).detach()
        return value, dict(zip(losses, weights, strict=True))
