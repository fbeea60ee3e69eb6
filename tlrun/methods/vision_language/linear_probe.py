"""Linear probe: logistic regression on features that stay as they are.

    min over W, b:  (1/N) Σ_n CE(W x̂_n + b, y_n) + (penalty / 2) ‖W‖²,      x̂ = f(x) / ‖f(x)‖

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
section 3.2 and appendix A.3: features without fine-tuning, L-BFGS, a penalty chosen for each data
set. The minimum is unique in W, so no learning rate, no steps and no seed play a part. penalty
null: of powers of ten by cross-validation on the labelled training images (5 folds, each class
spread over them; fewer where a class has fewer images). scikit-learn's C is 1 / (penalty · N).
x: (B, ...); f(x): (B, D); scores: (B, K).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlrun.config.ranges import Positive
from tlrun.fp32 import in_fp32
from tlrun.methods.base import Phase
from tlrun.methods.vision_language.text_head import OnTarget, labelled_features
from tlrun.models.net import Net

PENALTIES = [10.0**k for k in range(-6, 1)]
FOLDS = 5
ENOUGH = 1e-5  # gradient at which a fold's loss is known well enough to compare penalties
USUAL = 1e-3  # where a class has a single image, so that nothing can be held out


class UnitLinear(nn.Module):
    """W x̂ + b."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.out = nn.Linear(features, classes)

    @in_fp32
    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.out(F.normalize(features, dim=1))
        return logits


class LinearProbe(OnTarget):
    """penalty: on ‖W‖²/2, beside a mean over images; null: chosen by cross-validation."""

    def __init__(self, penalty: Positive | None = None) -> None:
        self.penalty = penalty

    def phases(self, data: Any) -> list[Phase]:
        return [Phase("probe", ("target",), steps=0, terms=False)]

    def build(self, phase: Phase, net: Net, data: Any) -> None:
        net.add("classifier", UnitLinear(net.feature_dim, data.num_classes))

    def start(self, phase: Phase, net: Net, data: Any) -> None:
        x, y = labelled_features(net, data)
        x, count = F.normalize(x, dim=1), data.num_classes
        penalty = choose_penalty(x, y, count) if self.penalty is None else self.penalty
        weight, bias = fit(x, y, count, penalty)
        head = net["classifier"]
        assert isinstance(head, UnitLinear)
        with torch.no_grad():
            head.out.weight.copy_(weight)
            head.out.bias.copy_(bias)


def fit(
    x: Tensor,
    y: Tensor,
    classes: int,
    penalty: float,
    start: tuple[Tensor, Tensor] | None = None,
    gradient: float = 1e-7,
) -> tuple[Tensor, Tensor]:
    """x: (N, D) float64; y: (N,) -> W (K, D), b (K,), to a gradient of that size.

    start: where the search begins; None = zeros.
    """
    if start is None:
        start = (x.new_zeros(classes, x.shape[1]), x.new_zeros(classes))
    weight, bias = (tensor.clone().requires_grad_() for tensor in start)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=1000,
        tolerance_grad=gradient,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, y) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(objective)
    return weight.detach(), bias.detach()


def choose_penalty(x: Tensor, y: Tensor, classes: int) -> float:
    """The penalty with the least cross-entropy on held-out folds.

    From the heaviest to the lightest, each from the weights of the one before: near its minimum.
    """
    folds = min(FOLDS, int(torch.bincount(y, minlength=classes)[y.unique()].min()))
    if folds < 2:
        return USUAL
    fold = fold_of(y, folds)
    losses = dict.fromkeys(PENALTIES, 0.0)
    for k in range(folds):
        known, held = fold != k, fold == k
        found: tuple[Tensor, Tensor] | None = None
        for penalty in reversed(PENALTIES):
            found = fit(x[known], y[known], classes, penalty, found, ENOUGH)
            logits = x[held] @ found[0].T + found[1]
            losses[penalty] += float(F.cross_entropy(logits, y[held], reduction="sum"))
    return min(losses, key=lambda penalty: losses[penalty])


def fold_of(y: Tensor, folds: int) -> Tensor:
    """(N,) the fold of each example: those of a class go to the folds in turn."""
    fold = torch.empty_like(y)
    for label in y.unique():
        rows = torch.nonzero(y == label).flatten()
        fold[rows] = torch.arange(len(rows), device=y.device) % folds
    return fold
