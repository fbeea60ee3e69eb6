"""Labels from the nearest class centroid. Pure functions, in fp32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tlrun.fp32 import in_fp32


@in_fp32
def centroid_labels(features: Tensor, probabilities: Tensor) -> Tensor:
    """Pseudo-labels of SHOT (Liang et al., ICML 2020, eq. 5-7), twice round.

        c_k = Σ_i p_ik f_i / Σ_i p_ik            ŷ_i = argmin_k D(f_i, c_k),    D = 1 − cos
        c_k = mean of the f_i with ŷ_i = k       ŷ_i = argmin_k D(f_i, c_k)

    features: (N, D); probabilities: (N, K), rows sum to 1 -> (N,) int64. A class that no image was
    given in the first round has no centroid, so none in the second.
    """
    labels = nearest(features, probabilities)
    hard = torch.zeros_like(probabilities).scatter_(1, labels[:, None], 1.0)
    return nearest(features, hard)


@in_fp32
def nearest(features: Tensor, weights: Tensor) -> Tensor:
    """The class of the nearest weighted mean. features: (N, D), weights: (N, K) -> (N,) int64.

    By cosine, for which a centroid's length (the division by Σ_i w_ik) does not count.
    """
    centroids = weights.T @ features
    cosine = normalize(features, dim=1) @ normalize(centroids, dim=1).T
    return cosine.masked_fill(weights.sum(0) <= 0, -torch.inf).argmax(1)
