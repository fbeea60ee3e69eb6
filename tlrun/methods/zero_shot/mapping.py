"""A linear map from features to attributes, x̂ᵀW, with x̂ = (x − mean) / scale."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tlrun.fp32 import in_fp32


class Mapping(nn.Module):
    """weight: (D, A). mean (D,) and scale: of the training features, so that E‖x̂‖² = 1.

    With one scale for all features the penalties of the methods mean the same for any backbone.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, attributes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features, attributes) / attributes**0.5)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(()))

    def fit_input(self, x: Tensor) -> None:
        """Measure mean and scale on training features x (n, D)."""
        self.mean.copy_(x.mean(0))
        self.scale.copy_((x - x.mean(0)).square().sum(1).mean().sqrt().clamp_min(1e-12))

    def standardize(self, x: Tensor) -> Tensor:
        """(n, D) in the type of x."""
        return (x - self.mean.to(x.dtype)) / self.scale.to(x.dtype)

    @in_fp32
    def forward(self, x: Tensor) -> Tensor:
        """x: (n, D) features -> (n, A)."""
        return self.standardize(x) @ self.weight.to(x.dtype)

    @in_fp32
    def compare(self, x: Tensor, rows: Tensor) -> Tensor:
        """x: (n, D) features, rows: (C, A) of classes -> x̂ᵀ W φ(y), (n, C)."""
        scores: Tensor = self(x) @ rows.to(x.dtype).T
        return scores
