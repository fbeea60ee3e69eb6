"""`balance=equal`, `balance=fixed`: Σ_t w_t L_t with weights that are given.

The plain sum of multi-task learning (Caruana, "Multitask Learning", Machine Learning 28, 1997).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tlrun.config.ranges import Weight
from tlrun.errors import ConfigError, did_you_mean
from tlrun.methods.balances.base import Balance
from tlrun.models.net import Net


class Fixed(Balance):
    """weights: task -> w_t, at least 0; a task that is not named has 1."""

    def __init__(self, weights: Mapping[str, Weight] | None = None) -> None:
        self.weights = {name: float(w) for name, w in (weights or {}).items()}

    def module(self, tasks: Mapping[str, str]) -> None:
        for name in set(self.weights) - set(tasks):
            raise ConfigError(f"balance.weights: no task '{name}': {did_you_mean(name, tasks)}")

    def combine(
        self, losses: dict[str, Tensor], net: Net, parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        parts = [self.weights.get(name, 1.0) * loss for name, loss in losses.items()]
        return torch.stack(parts).sum(), {}


class Equal(Fixed):
    """Every task weighs 1."""

    def __init__(self) -> None:
        super().__init__()
