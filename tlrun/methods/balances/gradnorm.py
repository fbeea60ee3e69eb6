"""`balance=gradnorm`: weights that are learned, so that all tasks train at similar rates.

    minimise over w  Σ_t | G_t − mean(G) · r_t^alpha |,     G_t = ‖∇_W w_t L_t‖
    r_t = (L_t / L_t(0)) / mean_s (L_s / L_s(0)),           Σ_t w_t = T after every step

W is the last layer that the tasks share, mean(G) · r_t^alpha is held constant, L_t(0) are the
losses of the first step: a task that has fallen less than the others may pull harder. Chen,
Badrinarayanan, Lee and Rabinovich, "GradNorm: Gradient normalization for adaptive loss balancing in
deep multitask networks", ICML 2018, eq. 1-2 (alpha 1.5 for their scenes).
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


class GradNorm(Balance):
    """alpha: how strongly a slow task is favoured, 0 = gradients of one length. lr: of w, Adam."""

    several_processes = False  # each would know its own gradients alone

    def __init__(self, alpha: NotNegative = 1.5, lr: LearningRate = 0.025) -> None:
        self.alpha, self.lr = alpha, lr
        self.first: Tensor | None = None  # (T,) L(0)
        self.last_shared: int | None = None  # position of W among the parameters

    def module(self, tasks: Mapping[str, str]) -> None:
        self.w = torch.ones(len(tasks), requires_grad=True)
        self.adam = torch.optim.Adam([self.w], lr=self.lr)

    def combine(
        self, losses: dict[str, Tensor], net: Net, parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        stacked = torch.stack(list(losses.values()))
        now = stacked.detach().cpu().clamp_min(SMALLEST)
        if self.first is None:
            self.first = now
        used = self.w.detach().clone().to(stacked.device)
        self._learn(self._lengths(list(losses.values()), parameters), now / self.first)
        return (used * stacked).sum(), dict(zip(losses, used, strict=True))

    def _lengths(self, losses: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> Tensor:
        """‖∇_W L_t‖ of each task, (T,)."""
        if self.last_shared is None:
            self.last_shared = _last_shared(losses, parameters)
        layer = parameters[self.last_shared]
        gradients = [torch.autograd.grad(loss, layer, retain_graph=True)[0] for loss in losses]
        return torch.stack([gradient.float().norm() for gradient in gradients]).cpu()

    def _learn(self, lengths: Tensor, fallen: Tensor) -> None:
        """One step of w. lengths: ‖∇_W L_t‖; fallen: L_t / L_t(0)."""
        rate = fallen / fallen.mean()
        with torch.enable_grad():
            scaled = self.w * lengths
            goal = (scaled.mean() * rate**self.alpha).detach()
            (self.w.grad,) = torch.autograd.grad((scaled - goal).abs().sum(), self.w)
        self.adam.step()
        with torch.no_grad():
            self.w.clamp_min_(SMALLEST)
            self.w.mul_(len(self.w) / self.w.sum())

    def state_dict(self) -> dict[str, Any]:
        state = {"w": self.w.detach().clone(), "adam": self.adam.state_dict()}
        return {**state, "first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.w.copy_(state["w"])
        self.adam.load_state_dict(state["adam"])
        self.first = state["first"]


def _last_shared(losses: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> int:
    """The position of the last weight (of two dimensions or more) that every loss reaches; a single
    task has its last one. A head begins behind it."""
    reached = [
        [
            g is not None
            for g in torch.autograd.grad(loss, parameters, None, True, allow_unused=True)
        ]
        for loss in losses
    ]
    weights = [i for i, p in enumerate(parameters) if p.ndim > 1]
    shared = [i for i in weights if all(row[i] for row in reached)]
    return shared[-1]
