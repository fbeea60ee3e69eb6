"""Figures of clusters, against a search over all assignments and a count by hand."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch

from tlrun.evaluate.clusters import (
    cluster_figures,
    clustering_accuracy,
    k_means,
    normalized_mutual_information,
)


def drawn(seed, classes=4, n=60):
    rng = np.random.default_rng(seed)
    return (torch.from_numpy(rng.integers(classes, size=n)) for _ in range(2))


@pytest.mark.parametrize("seed", range(5))
def test_the_best_assignment_of_all(seed):
    clusters, labels = drawn(seed)
    best = max(
        float(np.mean(np.array(names)[clusters.numpy()] == labels.numpy()))
        for names in permutations(range(4))
    )
    assert clustering_accuracy(clusters, labels) == pytest.approx(best, abs=1e-12)


def test_more_clusters_than_classes_leave_some_without_one():
    clusters, labels = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 0, 1, 1])
    assert clustering_accuracy(clusters, labels) == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_mutual_information_by_counting(seed):
    clusters, labels = drawn(seed)
    joint = np.histogram2d(clusters.numpy(), labels.numpy(), bins=(range(5), range(5)))[0] / 60
    rows, columns = joint.sum(1), joint.sum(0)
    shared = sum(
        joint[i, j] * math.log(joint[i, j] / (rows[i] * columns[j]))
        for i in range(4)
        for j in range(4)
        if joint[i, j]
    )
    entropies = [-sum(p * math.log(p) for p in side if p) for side in (rows, columns)]
    found = normalized_mutual_information(clusters, labels)
    assert found == pytest.approx(2 * shared / sum(entropies), abs=1e-9)


def test_features_in_heaps_are_found_and_unknown_labels_not_scored():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(20)
    features = torch.eye(3)[labels] + 0.05 * torch.randn(60, 3, generator=generator)
    assert cluster_figures(features, labels, seed=0) == {"clustering_accuracy": 1.0, "nmi": 1.0}
    labels[:10] = -1
    assert cluster_figures(features, labels, seed=0)["clustering_accuracy"] == 1.0
    assert torch.equal(k_means(features, 3, 1), k_means(features * 7, 3, 1))  # by direction alone


def test_what_cannot_be_measured_is_none():
    nothing = {"clustering_accuracy": None, "nmi": None}
    assert cluster_figures(torch.full((4, 2), math.nan), torch.arange(4), 0) == nothing
    assert cluster_figures(torch.ones(4, 2), torch.full((4,), -1), 0) == nothing
