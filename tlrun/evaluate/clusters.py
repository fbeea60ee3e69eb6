"""Figures of features without a classifier: do clusters of them agree with classes?

Labels are read for scoring alone. features: (n, D); labels, clusters: (n,) int64.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

STARTS = 10  # of k-means, of which the best sum of squares is kept


def k_means(features: Tensor, k: int, seed: int) -> Tensor:
    """Clusters 0 … k − 1 of the features at length 1, by Lloyd's k-means from k-means++ starts."""
    x = torch.nn.functional.normalize(features.double(), dim=1).numpy()
    found = KMeans(k, n_init=STARTS, random_state=seed).fit_predict(x)
    return torch.from_numpy(found.astype(np.int64))


def clustering_accuracy(clusters: Tensor, labels: Tensor) -> float:
    """Share in [0, 1] that is right under the best one-to-one assignment of clusters to classes.

    max over m of 1/n Σ_i 1[labels_i = m(clusters_i)], m by the Hungarian method: Xie, Girshick and
    Farhadi, "Unsupervised deep embedding for clustering analysis", ICML 2016, eq. 10.
    """
    size = int(max(clusters.max(), labels.max())) + 1
    table = torch.bincount(clusters * size + labels, minlength=size**2).reshape(size, size).numpy()
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / len(labels))


def normalized_mutual_information(clusters: Tensor, labels: Tensor) -> float:
    """2 I(c; y) / (H(c) + H(y)) in [0, 1]."""
    return float(normalized_mutual_info_score(labels.numpy(), clusters.numpy()))


def cluster_figures(features: Tensor, labels: Tensor, seed: int) -> dict[str, float | None]:
    """{"clustering_accuracy", "nmi"} of k-means with as many clusters as there are classes.

    All features are clustered; those with a label below 0 (unknown) are not scored. None where the
    features are not finite, or there are fewer of them than classes.
    """
    known = labels >= 0
    classes = len(labels[known].unique())
    if not classes or not bool(features.isfinite().all()):
        return {"clustering_accuracy": None, "nmi": None}
    clusters, truth = k_means(features, classes, seed)[known], labels[known]
    return {
        "clustering_accuracy": clustering_accuracy(clusters, truth),
        "nmi": normalized_mutual_information(clusters, truth),
    }
