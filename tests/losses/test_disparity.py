"""Distances between classifiers and between moments, against numpy and loops."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from tlrun.losses.disparity import discrepancy, margin_disparity, moment_distance, unlikelihood


def draws(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape) * 2


def test_the_discrepancy_equals_loops():
    a, b = draws(5, 3), draws(5, 3, seed=1)
    p, q = softmax(a, axis=1), softmax(b, axis=1)
    expected = sum(abs(p[i, k] - q[i, k]) for i in range(5) for k in range(3)) / 15
    ours = discrepancy(torch.tensor(a), torch.tensor(b))
    assert float(ours) == pytest.approx(expected, rel=1e-5)
    assert float(discrepancy(torch.tensor(a), torch.tensor(a) + 7.0)) == pytest.approx(0, abs=1e-6)


def test_the_discrepancy_is_at_most_two_over_the_classes():
    a, b = torch.tensor([[90.0, 0, 0, 0]]), torch.tensor([[0, 90.0, 0, 0]])
    assert float(discrepancy(a, b)) == pytest.approx(2 / 4)


def test_the_unlikelihood_equals_scipy():
    logits, y = draws(6, 4), np.arange(6) % 4
    expected = -np.log(1 - softmax(logits, axis=1)[np.arange(6), y]).mean()
    ours = unlikelihood(torch.tensor(logits), torch.tensor(y))
    assert float(ours) == pytest.approx(expected, rel=1e-5)


def test_it_stays_finite_where_the_probability_rounds_to_one():
    """−log(1 − p) is about the lead of the label: here 200 − log 2."""
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    loss = unlikelihood(logits, torch.tensor([0]))
    assert float(loss.detach()) == pytest.approx(200 - np.log(2), rel=1e-6)
    loss.backward()
    assert logits.grad.tolist()[0] == pytest.approx([1.0, -0.5, -0.5])


def test_the_margin_disparity_equals_scipy_and_spares_the_main_head():
    aux_s, main_s, aux_t, main_t = (draws(5, 3, seed=i) for i in range(4))
    rows = np.arange(5)
    agree = -log_softmax(aux_s, axis=1)[rows, main_s.argmax(1)].mean()
    differ = -np.log(1 - softmax(aux_t, axis=1)[rows, main_t.argmax(1)]).mean()
    tensors = [torch.tensor(x, requires_grad=True) for x in (aux_s, main_s, aux_t, main_t)]
    loss = margin_disparity(*tensors, gamma=4.0)
    assert float(loss.detach()) == pytest.approx(4 * agree + differ, rel=1e-5)
    loss.backward()
    assert tensors[0].grad.abs().sum() > 0
    assert tensors[2].grad.abs().sum() > 0
    assert tensors[1].grad is None
    assert tensors[3].grad is None


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("order", [1, 3])
def test_the_moment_distance_equals_loops(order, centred):
    sources = [draws(n, 4, seed=n) for n in (5, 7, 6)]
    target, expected = draws(8, 4, seed=9), 0.0
    for k in range(1, order + 1):
        moments = []
        for x in (*sources, target):
            about = x.mean(0) if centred and k > 1 else 0.0
            moments.append(((x - about) ** k).mean(0))
        *own, goal = moments
        expected += np.mean([np.linalg.norm(m - goal) for m in own])
        expected += np.mean([np.linalg.norm(a - b) for a, b in combinations(own, 2)])
    ours = moment_distance([torch.tensor(x) for x in sources], torch.tensor(target), order, centred)
    assert float(ours) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("centred", [True, False])
def test_standardised_moments_equal_numpy(centred):
    """Mean and spread of all 26 images, whatever domain they are of; 1e-5 is added to variances."""
    domains = [draws(n, 4, seed=n) * [1, 10, 100, 1] + [0, 5, 0, 1] for n in (5, 7, 6, 8)]
    together = np.concatenate(domains)
    spread = np.sqrt(together.var(0) + 1e-5)
    *sources, target = [torch.tensor((x - together.mean(0)) / spread) for x in domains]
    expected = moment_distance(sources, target, 3, centred)
    *sources, target = [torch.tensor(x) for x in domains]
    ours = moment_distance(sources, target, 3, centred, standardised=True)
    assert float(ours) == pytest.approx(float(expected), rel=1e-4)


def test_the_standardised_distance_knows_no_scale_and_survives_a_dead_feature():
    a, b = (torch.tensor(draws(6, 4, seed=s), dtype=torch.float32) for s in (0, 1))
    a[:, 0] = b[:, 0] = 0.0
    expected = float(moment_distance([a], b, standardised=True))
    wider = moment_distance([a * 50 + 3], b * 50 + 3, standardised=True)
    assert float(wider) == pytest.approx(expected, rel=1e-4)
    scale = torch.ones((), requires_grad=True)
    moment_distance([a * scale], b * scale, standardised=True).backward()
    assert abs(float(scale.grad)) < 1e-3 * expected  # to shrink the features gains nothing


@pytest.mark.parametrize("centred", [True, False])
def test_the_unbiased_distance_equals_loops(centred):
    """Σ over features of (a − b)², less the squared standard errors of both means."""
    sources = [draws(n, 4, seed=n) for n in (5, 7, 6)]
    target, expected = draws(8, 4, seed=9), 0.0
    for k in (1, 2):
        values = []
        for x in (*sources, target):
            about = x.mean(0) if centred and k > 1 else 0.0
            values.append((x - about) ** k)

        def apart(a, b):
            error = a.var(0, ddof=1) / len(a) + b.var(0, ddof=1) / len(b)
            return ((a.mean(0) - b.mean(0)) ** 2 - error).sum()

        *own, goal = values
        expected += np.mean([apart(v, goal) for v in own])
        expected += np.mean([apart(a, b) for a, b in combinations(own, 2)])
    tensors = [torch.tensor(x) for x in sources]
    ours = moment_distance(tensors, torch.tensor(target), 2, centred, unbiased=True)
    assert float(ours) == pytest.approx(expected, rel=1e-4)


def test_batches_of_one_domain_are_apart_but_not_for_the_unbiased_distance():
    found = {False: [], True: []}
    for seed in range(200):
        x = torch.tensor(draws(32, 20, seed=seed))
        for unbiased, distances in found.items():
            distances.append(float(moment_distance([x[:16]], x[16:], 1, unbiased=unbiased)))
    noise = np.sqrt(20 * 2 * 2.0**2 / 16)  # of 20 features of variance 4, two batches of 16
    assert np.mean(found[False]) == pytest.approx(noise, rel=0.05)
    assert np.mean(found[True]) == pytest.approx(0, abs=0.05 * noise**2)


def test_equal_domains_are_at_distance_zero_with_a_finite_gradient():
    x = torch.tensor(draws(6, 4), dtype=torch.float32, requires_grad=True)
    loss = moment_distance([x, x], x)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.isfinite(x.grad).all()


def test_one_source_is_compared_with_the_target_alone():
    a, b = torch.tensor(draws(6, 4)), torch.tensor(draws(5, 4, seed=1))
    expected = (a.mean(0) - b.mean(0)).norm()
    assert float(moment_distance([a], b, 1)) == pytest.approx(float(expected), rel=1e-5)
