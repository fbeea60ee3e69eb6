"""`terms=[stoch_norm]`: batch norm that now and then uses its running statistics in training.

    x̂_c = (1 − s_c) · (x_c − μ_batch) / σ_batch + s_c · (x_c − μ_running) / σ_running
    s_c ~ Bernoulli(p):  p is the probability of the running statistics, 1 − p that of the batch's

then the affine map as always; s is drawn anew for each channel c in every forward pass. The running
statistics are those before this batch, which moves them afterwards as ever. Kou et al., "Stochastic
normalization", NeurIPS 2020 (p = 0.5; the p of the authors' code is the probability of the batch's
statistics, 1 − p here). It keeps a net that is fine-tuned on few images close to the statistics it
came with. Evaluation and the keys of the state are batch norm's own, so the trained net needs
nothing of this. x: (B, C) or (B, C, ...).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from tlrun.config.ranges import Share
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.methods.base import Term
from tlrun.models.batch_norm import BatchNorm
from tlrun.models.net import Net


class StochNorm(Term):
    """p: probability that a channel is normalised by the running statistics, from 0 (plain batch
    norm) to 1 (running statistics alone)."""

    batch_statistics = True
    needs_images = False
    takes_soft_labels = True

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

        # functions of the module that calls them: a copy of the net shares this term
        before: dict[nn.Module, Tensor] = {}

        def keep(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            """The running branch, while the statistics do not hold this batch."""
            if self.active and norm.training and torch.is_grad_enabled():
                # of copies: the batch's branch moves the statistics in place
                statistics = {name: value.clone() for name, value in norm.named_buffers()}
                norm.training = False  # of this module alone
                before[norm] = functional_call(norm, statistics, inputs)
                norm.training = True

        def mix(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            running = before.pop(norm, None) if norm.training else None
            if running is None:
                return output
            chosen = torch.rand(output.shape[1], device=output.device) < self.p
            return torch.where(chosen.view(-1, *[1] * (output.ndim - 2)), running, output)

        self._hooks = [
            hook
            for norm in norms
            for hook in (
                norm.register_forward_pre_hook(keep),
                norm.register_forward_hook(mix),
            )
        ]

    def start(self, net: Net, data: Data) -> None:
        self.active = True

    def state_dict(self) -> dict[str, Any]:
        return {"active": self.active}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.active = bool(state["active"])
