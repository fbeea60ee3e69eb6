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


def fit(x: Tensor, y: Tensor, classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """x: (N, D) float64; y: (N,) -> W (K, D), b (K,), to a gradient of 1e-7."""
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=1000,
        tolerance_grad=1e-7,
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
    """The penalty with the least cross-entropy on held-out folds."""
    folds = min(FOLDS, int(torch.bincount(y, minlength=classes)[y.unique()].min()))
    if folds < 2:
        return USUAL
    fold = fold_of(y, folds)
    losses = []
    for penalty in PENALTIES:
        total = 0.0
        for k in range(folds):
            weight, bias = fit(x[fold != k], y[fold != k], classes, penalty)
            logits = x[fold == k] @ weight.T + bias
            total += float(F.cross_entropy(logits, y[fold == k], reduction="sum"))
        losses.append(total)
    return PENALTIES[losses.index(min(losses))]


def fold_of(y: Tensor, folds: int) -> Tensor:
    """(N,) the fold of each example: those of a class go to the folds in turn."""
    fold = torch.empty_like(y)
    for label in y.unique():
        rows = torch.nonzero(y == label).flatten()
        fold[rows] = torch.arange(len(rows), device=y.device) % folds
    return fold
