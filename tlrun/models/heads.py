"""Heads: what stands on the features. Stages are named, so they can be carried over or frozen.

Class scores and boxes are made in fp32, also under autocast, which is for backbones and domain
heads (docs/decisions.md, "Precision").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlrun.config.ranges import Share, Width
from tlrun.fp32 import in_fp32
from tlrun.models.backbones import dense


class Head(nn.Module):
    """Hidden layers fc1, fc2, ... (linear, batch norm, ReLU, dropout) and a linear layer `out`."""

    def __init__(
        self, in_dim: int, out_dim: int, hidden: Sequence[int], batch_norm: bool, dropout: float
    ) -> None:
        super().__init__()
        self.stage_names: list[str] = []
        for i, units in enumerate(hidden, start=1):
            self.add_module(f"fc{i}", dense(in_dim, units, batch_norm, dropout))
            self.stage_names.append(f"fc{i}")
            in_dim = units
        self.out = nn.Linear(in_dim, out_dim)
        self.stage_names.append("out")

    def forward(self, features: Tensor) -> Tensor:
        for stage in self.stage_names:
            features = self.get_submodule(stage)(features)
        return features


class Classifier(Head):
    """Class scores: features (B, in_dim) -> logits (B, num_classes).

    hidden: units of the hidden layers; (100, 100) is the label head of DANN's MNIST net, () is
    linear.
    """

    def __init__(
        self,
        in_dim: int,
        num_classes: int,
        hidden: Sequence[Width] = (100, 100),
        batch_norm: bool = False,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__(in_dim, num_classes, hidden, batch_norm, dropout)

    @in_fp32
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features)


class DomainHead(Head):
    """Source or target? features (B, in_dim) -> one logit each (B,); the paper's is FC100-1."""

    def __init__(
        self,
        in_dim: int,
        hidden: int = 100,
        layers: int = 1,
        batch_norm: bool = False,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__(in_dim, 1, [hidden] * layers, batch_norm, dropout)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).squeeze(1)


class BoxHead(Head):
    """Where it is: features (B, in_dim) -> boxes (B, 4), (left, top, right, bottom) in (0, 1)."""

    def __init__(
        self,
        in_dim: int,
        hidden: Sequence[Width] = (100, 100),
        batch_norm: bool = False,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__(in_dim, 4, hidden, batch_norm, dropout)

    @in_fp32
    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).sigmoid()


class CosineHead(nn.Module):
    """features (B, D) -> scale · cos(w_k, features), (B, K)."""

    def __init__(self, in_dim: int, num_classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, in_dim) * in_dim**-0.5)
        self.scale = scale

    @in_fp32
    def forward(self, features: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))
