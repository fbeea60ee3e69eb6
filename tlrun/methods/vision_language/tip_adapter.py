"""Tip-Adapter: CLIP's zero-shot classifier, with a cache of a few labelled images beside it.

    scores = cos(x, t) / τ + α · exp(−β (1 − x̂ Fᵀ)) L,      x̂ = f(x) / ‖f(x)‖

Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification", ECCV 2022,
eq. 3-6. F (N, D): unit features of the labelled images (keys), L (N, K): their classes, one-hot
(values). α weighs what the images say, β how near an image must be. They are null by default: of a
grid, those with the best accuracy when each labelled image is judged by the others (leave-one-out,
exact, since its own key is left out), ties by cross-entropy; with a single image of a class the
authors' starting point for ImageNet, α = 1 and β = 5.5. The authors search them on a validation set
and average each key over ten augmented views; here a key is one view. Nothing is trained.

`tip_adapter_f` then trains the keys, and these alone, by cross-entropy from that start (section
3.3). x: (B, ...); scores: (B, K).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlrun.config.ranges import LearningRate, NotNegative, Positive, Size
from tlrun.fp32 import in_fp32
from tlrun.losses.classification import classification_loss
from tlrun.methods.base import Batches, DomainOutput, Output, Phase, Progress, Update
from tlrun.methods.query import Query
from tlrun.methods.vision_language.text_head import (
    OnTarget,
    TextHead,
    labelled_features,
    read_text,
)
from tlrun.models.net import Net

ALPHAS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
BETAS = (1.0, 2.0, 5.5, 10.0, 20.0)
USUAL = (1.0, 5.5)


class Cache(nn.Module):
    """keys (N, D) and one-hot values (N, K) of the labelled images, with α and β.

    As long as nothing is in it N is 0; it takes the N of the checkpoint that it is loaded from.
    """

    values: Tensor
    alpha: Tensor
    beta: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.zeros(0, features))
        self.register_buffer("values", torch.zeros(0, classes))
        self.register_buffer("alpha", torch.tensor(USUAL[0]))
        self.register_buffer("beta", torch.tensor(USUAL[1]))

    @torch.no_grad()
    def fill(self, x: Tensor, y: Tensor, alpha: float, beta: float) -> None:
        """x: (N, D) unit features; y: (N,)."""
        self._resize(len(x))
        self.keys.copy_(x)
        self.values.copy_(F.one_hot(y, self.values.shape[1]))
        self.alpha.fill_(alpha)
        self.beta.fill_(beta)

    @in_fp32
    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> α exp(−β (1 − x̂ Fᵀ)) L, (B, K)."""
        near = F.normalize(features, dim=1) @ self.keys.T
        return self.alpha * ((near - 1) * self.beta).exp() @ self.values

    def _resize(self, count: int) -> None:
        """The parameter stays the same object, which an optimizer may hold."""
        if len(self.keys) != count:
            self.keys.data = self.keys.new_zeros(count, self.keys.shape[1])
            self.values = self.values.new_zeros(count, self.values.shape[1])

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *others: Any) -> None:
        if (keys := state.get(f"{prefix}keys")) is not None:
            self._resize(len(keys))
        super()._load_from_state_dict(state, prefix, *others)


class TipAdapter(OnTarget):
    """text: the file of the classes' text vectors. temperature: τ. alpha, beta: null = chosen."""

    def __init__(
        self,
        text: str | None = None,
        temperature: Positive = 0.01,
        alpha: NotNegative | None = None,
        beta: Positive | None = None,
    ) -> None:
        self.text, self.temperature, self.alpha, self.beta = text, temperature, alpha, beta

    def phases(self, data: Any) -> list[Phase]:
        return [Phase("cache", ("target",), steps=0, terms=False)]

    def build(self, phase: Phase, net: Net, data: Any) -> None:
        net.add("text", TextHead(data.num_classes, net.feature_dim, self.temperature))
        net.add("cache", Cache(net.feature_dim, data.num_classes))

    def start(self, phase: Phase, net: Net, data: Any) -> None:
        if phase.name != "cache":
            return
        read_text(net, "text", self.text, data.classes)
        x, y = labelled_features(net, data)
        x = F.normalize(x, dim=1)
        text = net["text"](x.float()).double()
        cache = net["cache"]
        assert isinstance(cache, Cache)
        cache.fill(x, y, *choose(x, y, text, self.alpha, self.beta))

    def scores(self, net: Net, features: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        text, cache = net["text"](features), net["cache"](features)
        total: Tensor = text + cache
        return total

    def predict(self, net: Net, x: Tensor, query: Query) -> Output:
        features = net(x, query.domain, head=None).features
        return Output(scores=self.scores(net, features), features=features)


class TipAdapterF(TipAdapter):
    """tune_steps: of the keys' training (None = `trainer.steps`). tune_lr: its learning rate
    (None = `optimizer.lr`); the authors take AdamW, 1e-3 and 20 epochs. The others: as above.
    """

    needs_images = False

    def __init__(
        self,
        text: str | None = None,
        temperature: Positive = 0.01,
        alpha: NotNegative | None = None,
        beta: Positive | None = None,
        tune_steps: Size | None = None,
        tune_lr: LearningRate | None = 1e-3,
    ) -> None:
        super().__init__(text, temperature, alpha, beta)
        self.tune_steps, self.tune_lr = tune_steps, tune_lr

    def phases(self, data: Any) -> list[Phase]:
        tune = Phase(
            "tune",
            ("target",),
            parts=("cache",),
            frozen=("backbone",),
            steps=self.tune_steps,
            optimizer={} if self.tune_lr is None else {"lr": self.tune_lr},
        )
        return [*super().phases(data), tune]

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        x, y = batch["target"].x, batch["target"].y
        features = net(x, "target", head=None).features
        scores = self.scores(net, features)
        yield Update(
            {"classification": classification_loss(scores, y)},
            parts=("cache",),
            outputs={"target": DomainOutput(x, features, scores, y)},
        )


def choose(
    x: Tensor, y: Tensor, text: Tensor, alpha: float | None, beta: float | None
) -> tuple[float, float]:
    """(α, β): as given, else by leave-one-out. x: (N, D) unit; y: (N,); text: (N, K) scores."""
    alphas = ALPHAS if alpha is None else (alpha,)
    betas = BETAS if beta is None else (beta,)
    if len(alphas) * len(betas) == 1:
        return alphas[0], betas[0]
    if int(torch.bincount(y)[y.unique()].min()) < 2:
        return (USUAL[0] if alpha is None else alpha), (USUAL[1] if beta is None else beta)
    near = (x @ x.T).fill_diagonal_(-torch.inf)  # exp gives 0: nobody is his own neighbour
    values = F.one_hot(y, text.shape[1]).to(x.dtype)

    def quality(setting: tuple[float, float]) -> tuple[float, float]:
        a, b = setting
        scores = text + a * ((near - 1) * b).exp() @ values
        right = (scores.argmax(1) == y).double().mean()
        return float(right), -float(F.cross_entropy(scores, y))

    return max(product(alphas, betas), key=quality)
