"""Scores against independent calculations: loops, dense matrices, scipy's search."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.covariance import LedoitWolf

from tlrun.evaluate import transferability as scores


def features_and_labels(n=40, width=5, classes=3, seed=0, signal=1.0):
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(n) % classes)
    centres = draw.normal(size=(classes, width))
    return draw.normal(size=(n, width)) + signal * centres[labels], labels


def log_evidence(f, y, alpha, beta):
    """log N(y; 0, I/β + FFᵀ/α): the marginal itself, without a posterior."""
    covariance = np.eye(len(f)) / beta + f @ f.T / alpha
    _, log_det = np.linalg.slogdet(covariance)
    return -0.5 * (len(f) * math.log(2 * math.pi) + log_det + y @ np.linalg.solve(covariance, y))


@pytest.mark.parametrize(("n", "width"), [(40, 5), (30, 60), (25, 1)])
def test_logme_is_the_maximum_of_the_marginal_likelihood(n, width):
    f, labels = features_and_labels(n, width)
    wanted = []
    for c in range(3):
        y = (labels == c).astype(float)
        tries = [
            minimize(
                lambda logs, y=y: -log_evidence(f, y, *np.exp(logs)),
                start,
                method="Nelder-Mead",
                options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000},
            )
            for start in ([0.0, 0.0], [2.0, 2.0])
        ]
        wanted.append(-min(found.fun for found in tries) / n)
    assert scores.logme(f, labels) == pytest.approx(np.mean(wanted), abs=1e-5)


def test_logme_orders_features_by_what_they_say_of_the_labels():
    by_signal = [
        scores.logme(*features_and_labels(200, 10, signal=signal)) for signal in (0.0, 0.5, 2.0)
    ]
    assert by_signal == sorted(by_signal)
    assert math.isfinite(scores.logme(np.zeros((6, 3)), [0, 1] * 3))
    constant = scores.logme(np.ones((6, 3)), [0, 1] * 3)
    assert math.isfinite(constant)
    exact = np.eye(2)[[0, 1] * 10]  # the labels themselves
    assert scores.logme(exact, [0, 1] * 10) > 2


def test_h_score_is_the_trace_of_its_definition():
    f, labels = features_and_labels()
    means = np.stack([f[labels == label].mean(0) for label in labels])
    wanted = np.trace(np.linalg.pinv(np.cov(f.T)) @ np.cov(means.T))
    assert scores.h_score(f, labels) == pytest.approx(wanted, rel=1e-10)
    doubled = np.hstack([f, f])  # a singular covariance
    assert scores.h_score(doubled, labels) == pytest.approx(wanted, rel=1e-8)
    wide, few = features_and_labels(20, 50)
    assert scores.h_score(wide, few) == pytest.approx(2)  # C − 1: it tells nothing


@pytest.mark.parametrize(("n", "width"), [(40, 5), (20, 50)])
def test_the_shrunk_h_score_is_that_of_ledoit_and_wolfs_covariance(n, width):
    f, labels = features_and_labels(n, width)
    centred = f - f.mean(0)
    shrunk = LedoitWolf(assume_centered=True).fit(centred)
    means = np.stack([centred[labels == label].mean(0) for label in labels])
    between = means.T @ means / n
    wanted = np.trace(np.linalg.inv(shrunk.covariance_) @ ((1 - shrunk.shrinkage_) * between))
    assert scores.h_score_shrunk(f, labels) == pytest.approx(wanted, rel=1e-8)


def probabilities_and_labels():
    draw = np.random.default_rng(3)
    return draw.dirichlet(np.ones(4), size=30), draw.permutation(np.arange(30) % 3)


def test_leep_by_loops():
    theta, labels = probabilities_and_labels()
    n, width = theta.shape
    joint = {
        (y, z): sum(theta[i, z] for i in range(n) if labels[i] == y) / n
        for y in range(3)
        for z in range(width)
    }
    total = 0.0
    for i in range(n):
        p = 0.0
        for z in range(width):
            p += theta[i, z] * joint[labels[i], z] / sum(joint[y, z] for y in range(3))
        total += math.log(p)
    assert scores.leep(theta, labels) == pytest.approx(total / n, rel=1e-12)
    certain = np.eye(3)[labels]
    assert scores.leep(certain, labels) == pytest.approx(0)
    unused = np.hstack([certain, np.zeros((n, 1))])
    assert scores.leep(unused, labels) == pytest.approx(0)


def test_nce_by_loops():
    theta, labels = probabilities_and_labels()
    guessed = [int(row.argmax()) for row in theta]
    total = 0.0
    for z, y in zip(guessed, labels, strict=True):
        same = [other for other, guess in zip(labels, guessed, strict=True) if guess == z]
        total += math.log(sum(other == y for other in same) / len(same))
    assert scores.nce(theta, labels) == pytest.approx(total / len(labels), rel=1e-12)
    assert scores.nce(np.eye(3)[labels][:, [2, 0, 1]], labels) == pytest.approx(0)


def test_nce_of_a_net_that_says_one_class_is_minus_the_entropy_of_the_labels():
    labels = [0] * 3 + [1] * 1
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    one = np.tile([0.9, 0.1], (4, 1))
    assert scores.nce(one, labels) == pytest.approx(-entropy)
    assert scores.leep(one, labels) == pytest.approx(-entropy)


@pytest.mark.parametrize("probe", [scores.logistic_probe, scores.knn_probe])
def test_probes_are_right_on_separated_classes_and_at_chance_on_noise(probe):
    f, labels = features_and_labels(90, 8, signal=6.0)
    assert probe(f, labels) > 0.97
    noise = np.random.default_rng(1).normal(size=(300, 4))
    assert abs(probe(noise, np.arange(300) % 2) - 0.5) < 0.12
    assert probe(f, labels, 1) == probe(f, labels, 1)


def test_a_class_of_one_image_is_no_error():
    f, labels = features_and_labels(21, 4, signal=6.0)
    labels[0] = 7
    assert 0.5 < scores.logistic_probe(f, labels) < 1
    assert 0.5 < scores.knn_probe(f, labels) < 1


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.ones((3, 2)), [0, 1], "do not go with 2 labels"),
        (np.ones((3, 2)), [1, 1, 1], "two classes"),
        (np.full((2, 2), np.nan), [0, 1], "not finite"),
    ],
)
def test_what_cannot_be_scored(x, y, said):
    with pytest.raises(ValueError, match=said):
        scores.logme(x, y)


@pytest.mark.parametrize("probe", [scores.logistic_probe, scores.knn_probe])
def test_one_image_a_class_is_too_few_to_cross_validate(probe):
    with pytest.raises(ValueError, match="no class has two labelled images"):
        probe(np.eye(4), np.arange(4))
    assert 0 <= probe(np.eye(5), [0, 0, 1, 1, 2]) <= 1  # as long as one class has two
