"""The ratio of two domains' densities, by a logistic regression of the domain."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

FEWEST = 4  # images of each domain that a ratio is estimated from


@lru_cache(maxsize=1)  # two validators ask for the same one; tensors are told apart by identity
def density_ratio(source: Tensor, target: Tensor) -> Tensor:
    """p_target(x) / p_source(x) at the features source (n, D), given target (m, D): (n,) float64.

    By Bayes n/m · p(target|x) / p(source|x) of a logistic regression of the domain. Each half of
    the images (every second one) is judged by the classifier of the other half: one that has seen
    an image knows its domain. NaN for fewer than 4 images of a domain or constant features.

    The features are standardised and the coefficients have a prior variance of 1/D, that of the
    logit then being 1 at any width: with a prior variance of 1, two samples of 2,000 x 768 from one
    distribution get weights up to 50,000, so up to 5. It also takes few iterations.
    """
    both = torch.cat([source, target]).double()
    varies = both.std(0) > 1e-9 * both.abs().amax(0)
    if min(len(source), len(target)) < FEWEST or not varies.any():
        return torch.full((len(source),), math.nan, dtype=torch.float64)
    both = both[:, varies]
    # fp32: half the time of float64, and far more digits than the estimate has
    x = ((both - both.mean(0)) / both.std(0)).float()
    is_target = torch.arange(len(x)) >= len(source)
    half = torch.cat([torch.arange(len(source)), torch.arange(len(target))]) % 2
    weights = torch.empty(len(source), dtype=torch.float64)
    for k in (0, 1):
        known, asked = half != k, (half == k) & ~is_target
        slope, intercept = logistic_regression(x[known], is_target[known], 1 / x.shape[1])
        odds = (x[asked] @ slope + intercept).double().exp()
        share = (~is_target[known]).sum() / is_target[known].sum()
        weights[half[: len(source)] == k] = share * odds
    return weights


def logistic_regression(x: Tensor, y: Tensor, variance: float) -> tuple[Tensor, Tensor]:
    """(coefficients (D,), intercept ()) of x (n, D) for y (n,) bool: the most probable ones.

    variance: of the coefficients' Gaussian prior; the intercept has none. By L-BFGS. scikit-learn's
    LogisticRegression(C=variance) finds the same, but a second of each run went into importing it.
    """
    x = x.detach()
    signs = torch.where(y, 1.0, -1.0).to(x)
    parameters = x.new_zeros(x.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=200,
        history_size=10,
        tolerance_grad=1e-5,
        tolerance_change=1e-9,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        """−ln posterior / n."""
        optimizer.zero_grad()
        slope, intercept = parameters[:-1], parameters[-1]
        loss = F.softplus(-signs * (x @ slope + intercept)).mean()
        loss = loss + slope.square().sum() / (2 * variance * len(x))
        loss.backward()
        return loss

    optimizer.step(objective)
    return parameters[:-1].detach(), parameters[-1].detach()
