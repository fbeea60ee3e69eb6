"""`terms=[delta]`: keep the feature maps, those most that matter for the target.

    Ω = α/2 · Σ_layers Σ_j C W_j · mean_x ‖FM_j(w, x) − FM_j(w⁰, x)‖² / (H W)  +  β/2 · ‖w_new‖²

FM_j(w, x): the j-th channel of a layer's output for a target image, (H, W); w⁰: the net at the
start of the target phase (a copy, in eval mode). W = softmax over the channels of a layer of the
rise in loss, over labelled target images, when filter j is zeroed; a head that is new is replaced
for this by a linear one fitted to the fixed features. Li et al., "DELTA: deep learning transfer
using feature map with attention", ICLR 2019. The layer of a stage is its last convolution (else its
last linear layer). The paper has no C / (H W), its authors' code has: without it the maps of the
first layers of a photograph, thousands of positions, count for all. The mean over the batch, where
they have the sum, makes α independent of its size: theirs of 0.01 for 64 images is 0.64 here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tlrun.config.ranges import Count, Weight
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.pipeline.streams import batches
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.methods.base import Term, Update
from tlrun.methods.terms.feature_maps import (
    Catch,
    attention,
    channels,
    fitted,
    layers,
    over_positions,
)
from tlrun.methods.terms.memory import Anchor, FrozenCopy, add_to_gradients, check_carried
from tlrun.methods.terms.shown import labelled_target, target_output
from tlrun.models.net import Net
from tlrun.models.prefix import entry_before, prefix


class Delta(Term):
    """alpha, beta: as above. stages: of the backbone, or patterns.

    attention: false gives all channels one weight. images: how many labelled target images W is
    estimated from, at most.
    """

    domains = ("target",)
    one_target = True
    takes_soft_labels = True

    def __init__(
        self,
        alpha: Weight = 0.001,
        beta: Weight = 0.01,
        stages: Sequence[str] = ("backbone",),
        attention: bool = True,
        images: Count = 200,
    ) -> None:
        self.alpha, self.beta, self.stages = alpha, beta, tuple(stages)
        self.attention, self.images = attention, images
        self.teacher, self.anchor = FrozenCopy(), Anchor()
        self.weights: dict[str, Tensor] = {}  # layer -> (C,)
        self.student = Catch(lambda: bool(self.weights))

    def attach(self, net: Net) -> None:
        self.student.attach(net, layers(net, self.stages))

    def check(self, net: Net, data: Data) -> None:
        check_carried(net, "delta")
        layers(net, self.stages)
        if self.attention:
            labelled_target(data, "delta")

    def start(self, net: Net, data: Data) -> None:
        self.anchor.remember(net, "delta")
        self.teacher.remember(net)
        teacher, found = self.teacher.of(net), layers(net, self.stages)
        if not self.attention:
            sizes = {name: channels(net.module_of(name)) for name in found}
            self.weights = {name: torch.full((size,), 1 / size) for name, size in sizes.items()}
            return
        examples = labelled_target(data, "delta")
        some = examples.subset(permutation(len(examples), "delta")[: self.images])
        device = next(net.parameters()).device
        x, y, _ = next(batches(some, data.preprocess, device, self.images))
        assert y is not None
        with torch.no_grad():
            carried = set(net.select([net.main_head])) <= set(net.carried)
            head = teacher[net.main_head] if carried else fitted(teacher.features(x), y)

            def loss(given: Tensor) -> Tensor:
                return cross_entropy(head(teacher.features(given)), y)

            for name in found:
                # every channel takes a pass: what lies before the layer's stage is run once
                teacher.entry = entry = entry_before(teacher, name)
                start = x if entry is None else prefix(teacher, entry, x)
                self.weights[name] = attention(teacher.module_of(name), partial(loss, start))
            teacher.entry = None

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        x = target_output(update, "delta").x
        with torch.no_grad():
            old = self.teacher.of(net)(x, head=None, taps=tuple(self.weights)).taps
        now = self.student.take()
        if not old.keys() <= now.keys() or any(now[n].shape != old[n].shape for n in old):
            raise ConfigError("terms=[delta] needs a method that forwards the target by itself")
        total = torch.zeros((), device=x.device)
        for name, weight in self.weights.items():
            away = (now[name].float() - old[name].float()).square()
            by_channel = over_positions(net.module_of(name), away).mean(0)
            total = total + len(weight) * (weight.to(x.device) * by_channel).sum()
        return {"delta": self.alpha / 2 * total}

    @torch.no_grad()
    def grad_(self, net: Net) -> None:
        new = self.anchor.new(net)
        add_to_gradients(new, new, self.beta)

    def state_dict(self) -> dict[str, Any]:
        anchor, teacher = self.anchor.values, self.teacher.state_dict()
        return {"anchor": anchor, "teacher": teacher, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.teacher.load_state_dict(state["teacher"])
        self.anchor.values, self.weights = dict(state["anchor"]), dict(state["weights"])
