"""Maximum mean discrepancy with several Gaussian kernels, and its joint form over layers.

    MMD²(S, T) = E k(x, x') + E k(y, y') − 2 E k(x, y),      x, x' ~ S,  y, y' ~ T

    k(x, y) = mean over u = −k .. k of  exp( −‖x − y‖² / (2^u · s) )

s is the mean (or median) squared distance of the pairs in the batch and carries no gradient: else
the features could grow instead of coming closer. Long et al., "Learning transferable features with
deep adaptation networks" (DAN), ICML 2015, eq. 3-5, with equal weights of the kernels. Joint MMD
takes the product of the kernels of several layers: Long et al., "Deep transfer learning with joint
adaptation networks" (JAN), ICML 2017, eq. 9-10. All in float32, whatever the features come in.

Estimators: `biased` (all pairs, an example with itself too; never negative), `unbiased` (pairs of
different examples; about 0, also below, where the domains are alike) and `linear` (the O(n) form:
neighbours in the batch only, unbiased, but noisier).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tlrun.fp32 import in_fp32
from tlrun.losses.distances import squared_distances

ESTIMATORS = ("biased", "unbiased", "linear")


@in_fp32
def mmd_loss(
    source: Tensor,
    target: Tensor,
    *,
    kernels: int = 2,
    bandwidth: str | float = "mean",
    estimator: str = "unbiased",
) -> Tensor:
    """source: (B, D), target: (B', D) -> scalar.

    kernels: k, so 2k + 1 of them. bandwidth: mean | median, or a number: one kernel with that s.
    Raises ValueError for less than 2 examples of a domain.
    """
    return joint_mmd_loss(
        [source], [target], kernels=kernels, bandwidths=[bandwidth], estimator=estimator
    )


@in_fp32
def joint_mmd_loss(
    source: Sequence[Tensor],
    target: Sequence[Tensor],
    *,
    kernels: int = 2,
    bandwidths: Sequence[str | float] = ("mean", "mean"),
    estimator: str = "unbiased",
) -> Tensor:
    """source, target: for each layer (B, D_l) and (B', D_l) of the same examples -> scalar.

    bandwidths: for each layer, as in `mmd_loss`.
    """
    count, other = len(source[0]), len(target[0])
    if min(count, other) < 2:
        raise ValueError("MMD needs at least 2 examples of each domain in a batch")
    layers = list(zip(source, target, bandwidths, strict=True))
    if estimator == "linear":
        pairs = [(_neighbours(s, t), b) for s, t, b in layers]
        k = [_gaussian(d, d, kernels, b) for d, b in pairs]
        same_s, same_t, first, second = torch.stack(k).prod(0)
        return (same_s + same_t - first - second).mean()
    pairs = [(_all_pairs(torch.cat([s, t])), b) for s, t, b in layers]
    k = [_gaussian(d, _each_once(d), kernels, b) for d, b in pairs]
    product = torch.stack(k).prod(0)
    within_s, within_t = product[:count, :count], product[count:, count:]
    across = product[:count, count:].mean()
    if estimator == "biased":
        return within_s.mean() + within_t.mean() - 2 * across
    if estimator == "unbiased":
        return _off_diagonal_mean(within_s) + _off_diagonal_mean(within_t) - 2 * across
    raise ValueError(f"unknown estimator '{estimator}'; valid: {', '.join(ESTIMATORS)}")


def _all_pairs(z: Tensor) -> Tensor:
    """z: (n, D) -> squared distances (n, n)."""
    return squared_distances(z, z)


def _neighbours(source: Tensor, target: Tensor) -> Tensor:
    """Squared distances of (x₁, x₂), (y₁, y₂), (x₁, y₂), (x₂, y₁): (4, n // 2)."""
    n = min(len(source), len(target)) // 2 * 2
    x1, x2, y1, y2 = source[:n:2], source[1:n:2], target[:n:2], target[1:n:2]
    pairs = ((x1, x2), (y1, y2), (x1, y2), (x2, y1))
    return torch.stack([(a - b).square().sum(1) for a, b in pairs])


def _each_once(distances: Tensor) -> Tensor:
    """(n, n) -> (n (n − 1) / 2,): each pair once, no example with itself."""
    row, column = torch.triu_indices(len(distances), len(distances), 1, device=distances.device)
    return distances[row, column]


def _gaussian(distances: Tensor, counted: Tensor, kernels: int, bandwidth: str | float) -> Tensor:
    """Squared distances -> the mean kernel of each. counted: those that set the bandwidth."""
    if not isinstance(bandwidth, str):
        return torch.exp(-distances / bandwidth)
    counted = counted.detach()
    scale = (counted.median() if bandwidth == "median" else counted.mean()).clamp_min(1e-12)
    powers = range(-kernels, kernels + 1)
    return torch.stack([torch.exp(-distances / (2.0**u * scale)) for u in powers]).mean(0)


def _off_diagonal_mean(k: Tensor) -> Tensor:
    return (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))
