"""`terms=[stoch_norm]`: batch norm that now and then uses its running statistics in training.

    x̂_c = (1 − s_c) · (x_c − μ_batch) / σ_batch + s_c · (x_c − μ_running) / σ_running,  s_c ~ B(p)

then the affine map as always; s is drawn anew for each channel c in every forward pass. Kou et al.,
"Stochastic normalization", NeurIPS 2020 (p = 0.5). It keeps a net that is fine-tuned on few images
close to the statistics it came with. Evaluation and the keys of the state are batch norm's own, so
the trained net needs nothing of this. x: (B, C) or (B, C, ...).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlrun.data.pair import Data
from tlrun.errors import ConfigError
from tlrun.methods.method import Term
from tlrun.models.batch_norm import BatchNorm
from tlrun.models.net import Net
from tlrun.ranges import Share


class StochNorm(Term):
    """p: share of the channels that are normalised by running statistics, from 0 to 1."""

    def __init__(self, p: Share = 0.5) -> None:
        self.p = p
        self.active = False  # not in a source phase
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def attach(self, net: Net) -> None:
        for hook in self._hooks:
            hook.remove()
        norms = [m for m in net.modules() if isinstance(m, _BatchNorm | BatchNorm)]
        if not norms:
            raise ConfigError("terms=[stoch_norm] needs a net with batch norm")

        def mix(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            """Not a method: a copy of the net shares this term."""
            if not (self.active and norm.training and torch.is_grad_enabled()):
                return output
            norm.training = False  # of this module alone
            running = norm.forward(*inputs)
            norm.training = True
            chosen = torch.rand(output.shape[1], device=output.device) < self.p
            return torch.where(chosen.view(-1, *[1] * (output.ndim - 2)), running, output)

        self._hooks = [norm.register_forward_hook(mix) for norm in norms]

    def start(self, net: Net, data: Data) -> None:
        self.active = True

    def state_dict(self) -> dict[str, Any]:
        return {"active": self.active}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.active = bool(state["active"])
