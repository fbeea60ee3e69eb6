"""`balance=uncertainty`: weights that are learned, by the noise of each task.

    Σ_t  e^{−s_t} L_t + ½ s_t   (classification)      ½ e^{−s_t} L_t + ½ s_t   (regression)

s_t = log σ_t², learned with the net from 0, without weight decay. The sum may fall below 0: judge
by the raw losses, which are logged. Kendall, Gal and Cipolla, "Multi-task learning using
uncertainty to weigh losses for scene geometry and semantics", CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tlrun.methods.balances.base import PART, Balance
from tlrun.models.net import Net


class LogVariances(nn.Module):
    """s_t by task."""

    no_weight_decay = True

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.s = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in tasks})


class Uncertainty(Balance):
    """No argument."""

    def module(self, tasks: Mapping[str, str]) -> nn.Module:
        self.factor = {name: 1.0 if kind == "class" else 0.5 for name, kind in tasks.items()}
        return LogVariances(list(tasks))

    def combine(
        self, losses: dict[str, Tensor], net: Net, parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        s = net[PART].s
        weights = {name: self.factor[name] * (-s[name]).exp() for name in losses}  # type: ignore[index]
        parts = [weights[name] * loss + 0.5 * s[name] for name, loss in losses.items()]  # type: ignore[index]
        return torch.stack(parts).sum(), {name: w.detach() for name, w in weights.items()}
