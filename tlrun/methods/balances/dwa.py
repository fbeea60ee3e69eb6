"""`balance=dwa`: dynamic weight average: a task whose loss falls slowly weighs more.

    w_t = T · softmax_t( r_t / temperature ),     r_t = L_t(window k−1) / L_t(window k−2)

L_t(window) is the mean loss of `window` steps (the paper's are epochs); 1 in the first two windows.
Liu, Johns and Davison, "End-to-end multi-task learning with attention", CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tlrun.config.ranges import Count, Positive
from tlrun.methods.balances.base import Balance
from tlrun.models.net import Net


class DWA(Balance):
    """temperature: above 0, larger = more even weights. window: steps, at least 1."""

    several_processes = False  # each would know its own losses alone

    def __init__(self, temperature: Positive = 2.0, window: Count = 100) -> None:
        self.temperature, self.window = temperature, window
        self.steps = 0
        self.sum: Tensor | None = None  # (T,), of the window that runs
        self.means: list[Tensor] = []  # of the last two windows

    def combine(
        self, losses: dict[str, Tensor], net: Net, parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        stacked = torch.stack(list(losses.values()))
        weights = torch.ones_like(stacked)
        if len(self.means) == 2:
            older, newer = (mean.to(stacked.device) for mean in self.means)
            weights = len(losses) * (newer / older / self.temperature).softmax(0)
        now = stacked.detach()
        self.sum = now if self.sum is None else self.sum.to(now.device) + now
        self.steps += 1
        if self.steps == self.window:
            self.means = [*self.means, self.sum / self.window][-2:]
            self.sum, self.steps = None, 0
        return (weights * stacked).sum(), dict(zip(losses, weights, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "sum": self.sum, "means": self.means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps, self.sum, self.means = state["steps"], state["sum"], list(state["means"])
