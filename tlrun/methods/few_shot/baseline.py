"""Baseline: learn the base classes as usual; for new ones fit a new linear head on fixed features.

    min over f, h:  E_base CE(h(f(x)), y)                         plain batches, no episodes
    for an episode: min over W, b: mean over the support of CE(W f(x) + b, y), from 0, f fixed

Chen, Liu, Kira, Wang, Huang, "A Closer Look at Few-shot Classification", ICLR 2019: behind the
methods for episodes on Omniglot, level with them on deeper nets or shifted domains. The paper fits
by stochastic gradients in batches of 4; here by full gradients from 0, which draws nothing, so the
same support always gives the same head.
x: (B, C, H, W); y: (B,) int64 of the base classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from tlrun.config.ranges import BelowOne, LearningRate, NotNegative, Size
from tlrun.data.problems.pair import Data
from tlrun.losses.classification import classification_loss
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.few_shot.episodic import FewShot
from tlrun.models.net import Net


class Baseline(FewShot):
    """fit_steps, fit_lr, fit_decay: steps, learning rate and weight decay of the new head's fit.

    label_smoothing: share in [0, 1) that is spread over the base classes.
    """

    needs_images = False

    def __init__(
        self,
        fit_steps: Size = 100,
        fit_lr: LearningRate = 0.1,
        fit_decay: NotNegative = 1e-3,
        label_smoothing: BelowOne = 0.0,
    ) -> None:
        self.fit_steps, self.fit_lr, self.fit_decay = fit_steps, fit_lr, fit_decay
        self.label_smoothing = label_smoothing

    def phases(self, data: Data) -> list[Phase]:
        return [Phase(streams=("source",))]

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        net.add("classifier", net.new_head(len(data.source_classes)))

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        drawn = batch["source"]
        loss = classification_loss(net(drawn.x).logits, drawn.y, self.label_smoothing)
        yield Update({"classification": loss})

    def classify(self, net: Net, query: Tensor, support: Tensor, y: Tensor) -> Tensor:
        size = (len(support), int(y.max()) + 1)

        def scores(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return torch.einsum("emd,ekd->emk", x, weight) + bias[:, None]

        start = [support.new_zeros(*size, support.shape[2]), support.new_zeros(*size)]
        return scores(query, *self.fit(scores, support, y, start))

    def fit(
        self, scores: Callable[..., Tensor], support: Tensor, y: Tensor, weights: list[Tensor]
    ) -> list[Tensor]:
        """Gradient descent for E heads at once: scores(support (E, M, D), *weights) -> (E, M, K),
        each of the weights with a first dimension of E. Also under no_grad."""
        target = y.repeat(len(support))
        support = support.detach()
        with torch.enable_grad():
            for _ in range(self.fit_steps):
                weights = [weight.detach().requires_grad_() for weight in weights]
                found = scores(support, *weights).flatten(0, 1)
                loss = F.cross_entropy(found, target, reduction="sum") / len(y)
                slopes = torch.autograd.grad(loss, weights)
                weights = [
                    weight - self.fit_lr * (slope + self.fit_decay * weight)
                    for weight, slope in zip(weights, slopes, strict=True)
                ]
        return [weight.detach() for weight in weights]
