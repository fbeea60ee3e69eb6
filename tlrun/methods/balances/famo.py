"""`balance=famo`: fast adaptive multitask optimization: all losses fall at the same rate.

    minimise  c Σ_t z_t log L_t,    z = softmax(w),    c = 1 / Σ_t (z_t / L_t)
    after the step, on the same batch:  w by Adam along  −Jᵀ(log L_t(before) − log L_t(after))

J is the Jacobian of z by w: a task that fell less than the others gains weight. Liu, Feng, Stone
and Liu, "FAMO: Fast adaptive multitask optimization", NeurIPS 2023 (lr 0.025, decay 0.001).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tlrun.config.ranges import LearningRate, NotNegative
from tlrun.methods.balances.base import Balance
from tlrun.models.net import Net

SMALLEST = 1e-8


class FAMO(Balance):
    """lr: of the weights w. decay: their weight decay, the paper's γ."""

    several_processes = False  # each would know its own losses alone
    needs_post_step_losses = True

    def __init__(self, lr: LearningRate = 0.025, decay: NotNegative = 0.001) -> None:
        self.lr, self.decay = lr, decay
        self.before: Tensor | None = None

    def module(self, tasks: Mapping[str, str]) -> None:
        self.w = torch.zeros(len(tasks), requires_grad=True)
        self.adam = torch.optim.Adam([self.w], lr=self.lr, weight_decay=self.decay)

    def combine(
        self, losses: dict[str, Tensor], net: Net, parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        stacked = torch.stack(list(losses.values())) + SMALLEST
        z = self.w.detach().softmax(0).to(stacked.device)
        c = 1 / (z / stacked.detach()).sum()
        self.before = stacked.detach().cpu()
        return c * (z * stacked.log()).sum(), dict(zip(losses, z, strict=True))

    def update_weights(self, losses: dict[str, Tensor]) -> None:
        assert self.before is not None
        now = torch.stack(list(losses.values())).cpu() + SMALLEST
        fell = self.before.log() - now.log()
        with torch.enable_grad():
            (self.w.grad,) = torch.autograd.grad(self.w.softmax(0), self.w, grad_outputs=fell)
        self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        return {"w": self.w.detach().clone(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.w.copy_(state["w"])
        self.adam.load_state_dict(state["adam"])
