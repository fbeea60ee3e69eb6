"""`terms=[l2_sp]`: stay near the weights that were carried over.

    Ω(w) = α/2 · ‖w_S − w_S⁰‖² + β/2 · ‖w_new‖²

w_S are the parameters of the carried stages, w_S⁰ their values at the start of the target phase,
w_new all others that train. Li, Grandvalet and Davoine, "Explicit inductive bias for transfer
learning with convolutional networks", ICML 2018. α = 2λ, β = 0 with the head carried over is the
plain loss + λ · Σ (w − w⁰)².

The gradient α (w_S − w_S⁰) + β w_new is added in place, without a graph, after averaging and
unscaling and before clipping. SGD follows it stably while lr · α < 2; at lr = 1/α each step ends
within ‖g‖/α of w_S⁰ (g: the loss's gradient), so with α → ∞ the weights stay at the start. Adam
rescales the sum: its weights stay within a few lr of w_S⁰ then. It takes the place of weight decay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tlrun.config.ranges import Weight
from tlrun.data.problems.pair import Data
from tlrun.methods.base import Term, Update
from tlrun.methods.terms.memory import Anchor, add_to_gradients, check_carried
from tlrun.models.net import Net


class L2SP(Term):
    """alpha: of carried weights. beta: of new ones.

    `metric/l2_sp` is Ω; the loss that is minimised by backward does not hold it.
    """

    needs_images = False
    takes_soft_labels = True
    decays_weights = True

    def __init__(self, alpha: Weight = 0.1, beta: Weight = 0.01) -> None:
        self.alpha, self.beta = alpha, beta
        self.anchor = Anchor()

    def check(self, net: Net, data: Data) -> None:
        check_carried(net, "l2_sp")

    def start(self, net: Net, data: Data) -> None:
        self.anchor.remember(net, "l2_sp")

    @torch.no_grad()
    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        _, _, away = self.anchor.away(net)
        value = self.alpha * _square(away) + self.beta * _square(self.anchor.new(net))
        update.metrics["l2_sp"] = 0.5 * value
        return {}

    @torch.no_grad()
    def grad_(self, net: Net) -> None:
        _, old, away = self.anchor.away(net)
        add_to_gradients(old, away, self.alpha)
        new = self.anchor.new(net)
        add_to_gradients(new, new, self.beta)

    def state_dict(self) -> dict[str, Any]:
        return {"anchor": self.anchor.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.anchor.values = dict(state["anchor"])


def _square(tensors: list[Tensor]) -> Tensor | float:
    """Σ ‖t‖² over all tensors."""
    return torch.stack(torch._foreach_norm(tensors)).square().sum() if tensors else 0.0
