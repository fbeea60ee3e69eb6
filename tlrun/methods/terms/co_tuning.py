"""`terms=[co_tuning]`: the head of the source classes learns on target images too.

    λ · mean_x CE( p(y_S | y_T = y(x)), h_S(f(x)) )

    p(y_S | y_T = k) = mean over target images of class k of softmax(z_S⁰(x) / T)

h_S is the head of the source classes, z_S⁰ (B, K_S) its logits at the start of the target phase in
eval mode: the relation between the classes in the paper's direct form. You et al., "Co-Tuning for
transfer learning", NeurIPS 2020 (λ = 2.3 there). It is made for classes that differ, where the
source keeps its own head: with `init=pretrained`, the paper's case, the one that the weights were
published with. With the same classes h_S is the classifier that was carried over and the term
softens the labels by what the source model confuses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tlrun.config.ranges import Positive, Weight
from tlrun.data.pipeline.streams import batches
from tlrun.data.problems.pair import Data
from tlrun.methods.base import Term, Update
from tlrun.methods.terms.memory import FrozenCopy
from tlrun.methods.terms.shown import labelled_target, old_head, shown
from tlrun.models.net import Net


class CoTuning(Term):
    """weight: λ. temperature: T, above 0; above 1 where the source model is too sure of itself."""

    domains = ("target",)
    reads = ("features", "labels")
    needs_images = False
    one_target = True
    published_head = True

    def __init__(self, weight: Weight = 1.0, temperature: Positive = 1.0) -> None:
        self.weight, self.temperature = weight, temperature
        self.relation = torch.zeros(0)  # (K_T, K_S), rows sum to 1
        self.head = ""

    def check(self, net: Net, data: Data) -> None:
        labelled_target(data, "co_tuning")
        old_head(net, "co_tuning")

    @torch.no_grad()
    def start(self, net: Net, data: Data) -> None:
        examples = labelled_target(data, "co_tuning")
        assert examples.labels is not None
        self.head = old_head(net, "co_tuning")
        copied = FrozenCopy()
        copied.remember(net)  # in eval mode
        device = next(net.parameters()).device
        p = []
        for x, _, _ in batches(examples, data.preprocess, device):
            logits = copied.of(net)(x, head=self.head).logits
            p.append((logits / self.temperature).softmax(1))
        labels = examples.labels.to(device)
        self.relation = relation(torch.cat(p), labels, data.num_classes)

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        y = shown(update, "co_tuning", "y")
        logits = update.outputs["target"].logits if self.head == net.main_head else None
        if logits is None:
            logits = net[self.head](shown(update, "co_tuning", "features"))
        wanted = self.relation.to(y.device)[y]
        return {"co_tuning": self.weight * cross_entropy(logits, wanted)}

    def state_dict(self) -> dict[str, Any]:
        return {"relation": self.relation, "head": self.head}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.relation, self.head = state["relation"], str(state["head"])


def relation(p: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """p: (N, K_S) probabilities, y: (N,) -> (num_classes, K_S) class means.

    A class without an image gets equal shares.
    """
    total = p.new_zeros(num_classes, p.shape[1]).index_add_(0, y, p)
    count = torch.bincount(y, minlength=num_classes)[:, None]
    return torch.where(count > 0, total / count.clamp_min(1), 1 / p.shape[1])
