"""CORAL: distance between the second-order statistics of two sets of features.

Sun and Saenko, "Deep CORAL: correlation alignment for deep domain adaptation", ECCV 2016 workshops,
eq. 1-3. All in float32, whatever the features come in.
"""

from __future__ import annotations

from torch import Tensor

from tlrun.fp32 import in_fp32


@in_fp32
def covariance(features: Tensor) -> Tensor:
    """features: (B, D), B > 1 -> (D, D) float32, divided by B − 1."""
    centred = features - features.mean(0)
    return centred.T @ centred / (len(features) - 1)


@in_fp32
def coral_loss(source: Tensor, target: Tensor) -> Tensor:
    """‖C_S − C_T‖²_F / (4 D²). source: (B, D), target: (B', D) -> scalar."""
    width = source.shape[1]
    difference = covariance(source) - covariance(target)
    return difference.square().sum() / (4 * width**2)


@in_fp32
def mean_loss(source: Tensor, target: Tensor) -> Tensor:
    """‖μ_S − μ_T‖² / D, the first-order part. source: (B, D), target: (B', D) -> scalar."""
    return (source.mean(0) - target.mean(0)).square().mean()
