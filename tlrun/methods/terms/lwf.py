"""`terms=[lwf]`: learning without forgetting: the old head keeps answering as it did.

    λ · mean_x KL( softmax(z⁰(x) / T) ‖ softmax(z(x) / T) )

z⁰ are the old head's logits (B, K_old) of the net as it was at the start of the target phase (a
copy, in eval mode), z those of the net that trains, both on the same augmented target images. The
old head is the source's own where the classes differ (with `init=pretrained` that of the published
weights), else the classifier that was carried over; of several old heads the divergences are
summed. Li and Hoiem, "Learning without forgetting", ECCV 2016 (T = 2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from tlrun.config.ranges import Positive, Weight
from tlrun.data.problems.pair import Data
from tlrun.fp32 import in_fp32
from tlrun.methods.base import Term, Update
from tlrun.methods.terms.memory import FrozenCopy
from tlrun.methods.terms.shown import old_heads, target_output
from tlrun.models.net import Net


class LwF(Term):
    """weight: λ. temperature: T, above 0."""

    domains = ("target",)
    reads = ("features",)
    published_head = True
    takes_soft_labels = True

    def __init__(self, weight: Weight = 1.0, temperature: Positive = 2.0) -> None:
        self.weight, self.temperature = weight, temperature
        self.teacher = FrozenCopy()
        self.heads: list[str] = []

    def check(self, net: Net, data: Data) -> None:
        old_heads(net, "lwf")

    def start(self, net: Net, data: Data) -> None:
        self.heads = list(old_heads(net, "lwf"))
        self.teacher.remember(net)

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        target = target_output(update, "lwf")
        teacher = self.teacher.of(net)
        with torch.no_grad():
            features = teacher.features(target.x)
            old = [teacher[head](features) for head in self.heads]
        total = torch.zeros((), device=target.x.device)
        for head, answer in zip(self.heads, old, strict=True):
            now = target.logits if head == net.main_head else None
            now = net[head](target.features) if now is None else now
            total = total + self.divergence(answer, now)
        return {"lwf": self.weight * total}

    @in_fp32
    def divergence(self, old: Tensor, now: Tensor) -> Tensor:
        """old, now: (B, K) logits -> the mean KL at the temperature."""
        old, now = ((z / self.temperature).log_softmax(1) for z in (old, now))
        return kl_div(now, old, reduction="batchmean", log_target=True)

    def state_dict(self) -> dict[str, Any]:
        return {"teacher": self.teacher.state_dict(), "heads": self.heads}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.teacher.load_state_dict(state["teacher"])
        self.heads = list(state["heads"])
