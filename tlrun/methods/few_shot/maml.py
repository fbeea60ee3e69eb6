"""MAML: a start from which a few gradient steps on the support suffice.

    θ' = θ − α ∇_θ L_support(θ)                repeated `inner_steps` times
    min over θ: Σ_episodes L_query(θ')         through the inner steps, second derivatives included

Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML
2017. Omniglot: 98.7 / 99.9 % in 5-way 1-shot / 5-shot (32 episodes a step, α = 0.4, 1 inner step,
3 at the test). The head has the way of `data.train`; pairs of `data.tests` with another way get
no figure. Batch norm: always the statistics of the batch at hand, of the support in an inner step
and of the queries together afterwards, as in the paper, so predictions depend on which queries
come together (transductive); `transductive=false` uses running statistics when not training.
x: (E way (shot + query), C, H, W), episode after episode.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tlrun.config.ranges import Depth, LearningRate
from tlrun.data.problems.episodes import EpisodeBatch, labels_of, split
from tlrun.data.problems.label_space import EpisodeFacts, facts_as
from tlrun.data.problems.pair import Data
from tlrun.fp32 import in_fp32
from tlrun.losses.classification import classification_loss
from tlrun.methods.base import Batches, Output, Phase, Progress, Update
from tlrun.methods.few_shot.episodic import FewShot, share_right
from tlrun.methods.query import Query, Support
from tlrun.models.batch_norm import is_held
from tlrun.models.net import Net


class MAML(FewShot):
    """inner_lr: α. inner_steps, test_steps: inner steps in training and afterwards (0: none)."""

    needs_images = False  # frozen stages are no part of θ', so what they make of images will do
    first_order = False  # whether θ' is taken as a constant shift of θ
    inner_parts: tuple[str, ...] | None = None  # what the inner steps change (None: all)

    def __init__(
        self,
        inner_lr: LearningRate = 0.4,
        inner_steps: Depth = 1,
        test_steps: Depth = 3,
        transductive: bool = True,
    ) -> None:
        self.inner_lr, self.inner_steps, self.test_steps = inner_lr, inner_steps, test_steps
        self.transductive = transductive
        self.frozen: list[str] = []  # stages that no inner step changes, as no outer one does

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("classifier", net.new_head(facts_as(data.facts, EpisodeFacts).train.way))

    def start(self, phase: Phase, net: Net, data: Data) -> None:
        self.frozen = net.select(phase.frozen)

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        drawn = batch["source"]
        assert isinstance(drawn, EpisodeBatch)
        shape = drawn.shape
        y = labels_of(shape.way, shape.shot, drawn.x.device)
        target = labels_of(shape.way, shape.query, drawn.x.device)
        losses, right = [], []
        for support, query in zip(*split(drawn.x, shape), strict=True):
            fast = self.inner_loop(net, Support(support, y), self.inner_steps, training=True)
            scores = functional_call(net, fast, (query,)).logits
            losses.append(classification_loss(scores, target))
            right.append(share_right(scores, target))
        yield Update(
            {"query": torch.stack(losses).mean()}, metrics={"accuracy": torch.stack(right).mean()}
        )

    def inner_loop(
        self, net: Net, support: Support, steps: int, *, training: bool
    ) -> dict[str, Tensor]:
        """Name -> θ' of what the inner steps change; differentiable in θ if `training`."""
        still = {id(weight) for stage in self.frozen for weight in net.parameters_in(stage)}
        inner = {
            name: parameter
            for name, parameter in net.named_parameters()
            if self.inner_parts is None or name.split(".")[1] in self.inner_parts
            if id(parameter) not in still
        }
        fast: dict[str, Tensor] = dict(inner)
        if not training:
            fast = {name: value.detach().requires_grad_() for name, value in inner.items()}
        second = training and not self.first_order  # whether derivatives of these steps count
        for _ in range(steps if fast else 0):
            scores = functional_call(net, fast, (support.x,)).logits
            loss = classification_loss(scores, support.y)
            slopes = in_fp32(torch.autograd.grad)(loss, list(fast.values()), create_graph=second)
            paired = zip(fast.items(), slopes, strict=True)
            fast = {name: value - self.inner_lr * slope for (name, value), slope in paired}
        return fast

    def predict(self, net: Net, x: Tensor, query: Query) -> Output:
        """No scores without a support, or for one whose way is not the head's."""
        head: Any = net["classifier"]
        support = query.support
        if support is None or support.way != head.out.out_features:
            return Output(features=net(x, head=None).features)
        norms = [
            m
            for m in net.modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm) and not is_held(m)
        ]
        statistics = {name: value.clone() for name, value in net.named_buffers()}
        for norm in norms if self.transductive else ():
            norm.train()
        net.set_frozen_eval(self.frozen)  # these have their own statistics in training too
        try:
            with torch.enable_grad():
                fast = self.inner_loop(net, support, self.test_steps, training=False)
            # a single image has no statistics of its own: the support joins it
            batch = x if len(x) > 1 else torch.cat([x, support.x])
            out = functional_call(net, fast, (batch,))
        finally:
            for norm in norms if self.transductive else ():
                norm.eval()
            for name, value in net.named_buffers():
                value.copy_(statistics[name])
        return Output(scores=out.logits[: len(x)], features=out.features[: len(x)])

    def state_dict(self) -> dict[str, Any]:
        return {"frozen": self.frozen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.frozen = list(state.get("frozen", ()))
