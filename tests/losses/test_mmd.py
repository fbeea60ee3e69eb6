"""MMD and its joint form against sums over pairs, one kernel at a time."""

import math

import numpy as np
import pytest
import torch

from tlrun.losses.mmd import ESTIMATORS, joint_mmd_loss, mmd_loss


def draws(rows, shift=0.0, seed=0, dim=5):
    return np.random.default_rng(seed).normal(size=(rows, dim)) + shift


def squared(a, b):
    return float(((a - b) ** 2).sum())


def scale_of(values, bandwidth):
    if not isinstance(bandwidth, str):
        return bandwidth
    return np.mean(values) if bandwidth == "mean" else sorted(values)[(len(values) - 1) // 2]


def kernel(d, scale, kernels, fixed=False):
    if fixed:
        return math.exp(-d / scale)
    powers = range(-kernels, kernels + 1)
    return sum(math.exp(-d / (2**u * scale)) for u in powers) / len(powers)


def by_loops(source, target, kernels, bandwidths, estimator):
    """source, target: lists of arrays, one for each layer."""

    def k(domain_a, i, domain_b, j):
        value = 1.0
        for layer, (scale, fixed) in enumerate(scales):
            value *= kernel(squared(domain_a[layer][i], domain_b[layer][j]), scale, kernels, fixed)
        return value

    n, m = len(source[0]), len(target[0])
    scales = []
    for s, t, bandwidth in zip(source, target, bandwidths, strict=True):
        if estimator == "linear":
            distances = []
            for i in range(0, min(n, m) - 1, 2):
                distances += [squared(s[i], s[i + 1]), squared(t[i], t[i + 1])]
                distances += [squared(s[i], t[i + 1]), squared(s[i + 1], t[i])]
        else:
            z = np.concatenate([s, t])
            distances = [squared(z[i], z[j]) for i in range(len(z)) for j in range(i)]
        scales.append((scale_of(distances, bandwidth), not isinstance(bandwidth, str)))
    S, T = source, target
    if estimator == "linear":
        terms = [
            k(S, i, S, i + 1) + k(T, i, T, i + 1) - k(S, i, T, i + 1) - k(S, i + 1, T, i)
            for i in range(0, min(n, m) - 1, 2)
        ]
        return sum(terms) / len(terms)
    with_itself = estimator == "biased"
    ss = [k(S, i, S, j) for i in range(n) for j in range(n) if with_itself or i != j]
    tt = [k(T, i, T, j) for i in range(m) for j in range(m) if with_itself or i != j]
    st = [k(S, i, T, j) for i in range(n) for j in range(m)]
    return np.mean(ss) + np.mean(tt) - 2 * np.mean(st)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("bandwidth", ["mean", "median", 3.0])
@pytest.mark.parametrize("kernels", [0, 2])
def test_it_equals_a_sum_over_pairs(estimator, bandwidth, kernels):
    a, b = draws(7), draws(9, shift=0.7, seed=1)
    ours = mmd_loss(
        torch.tensor(a),
        torch.tensor(b),
        kernels=kernels,
        bandwidth=bandwidth,
        estimator=estimator,
    )
    expected = by_loops([a], [b], kernels, [bandwidth], estimator)
    assert float(ours) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("bandwidth", ["mean", "median"])
@pytest.mark.parametrize("count", [2, 6, 8, 9])
def test_the_linear_form_counts_all_its_pairs_for_the_bandwidth(bandwidth, count):
    """With 8 images there are 4 pairs of each of 4 kinds: a square that is no table of pairs."""
    a, b = draws(count), draws(count, shift=0.7, seed=1)
    ours = mmd_loss(torch.tensor(a), torch.tensor(b), bandwidth=bandwidth, estimator="linear")
    expected = by_loops([a], [b], 2, [bandwidth], "linear")
    assert float(ours) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_joint_form_multiplies_the_kernels_of_layers(estimator):
    source = [draws(6), draws(6, seed=2, dim=3)]
    target = [draws(8, shift=0.5, seed=3), draws(8, seed=4, dim=3)]
    ours = joint_mmd_loss(
        [torch.tensor(s) for s in source],
        [torch.tensor(t) for t in target],
        bandwidths=("mean", 1.68),
        estimator=estimator,
    )
    expected = by_loops(source, target, 2, ("mean", 1.68), estimator)
    assert float(ours) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_only_the_joint_form_sees_how_layers_go_together():
    """The same marginals, but in the target features and predictions are paired anew."""
    sign = torch.tensor([1.0, -1.0]).repeat(50)[:, None]
    noise = 0.1 * torch.randn(100, 1, generator=torch.Generator().manual_seed(0))
    source, target = [sign + noise, sign], [sign + noise, -sign]
    for s, t in zip(source, target, strict=True):
        assert abs(float(mmd_loss(s, t, estimator="biased"))) < 1e-5
    assert float(joint_mmd_loss(source, target, estimator="biased")) > 0.1


def test_the_unbiased_forms_are_about_zero_for_one_distribution():
    values = {name: [] for name in ESTIMATORS}
    for seed in range(200):
        a = torch.tensor(draws(8, seed=2 * seed))
        b = torch.tensor(draws(8, seed=2 * seed + 1))
        for name in ESTIMATORS:
            values[name].append(float(mmd_loss(a, b, bandwidth=10.0, estimator=name)))
    assert min(values["biased"]) > 0
    for name in ("unbiased", "linear"):
        error = np.std(values[name]) / math.sqrt(200)
        assert abs(np.mean(values[name])) < 4 * error
        assert np.mean(values["biased"]) > 10 * error


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("bandwidth", ["mean", "median"])
def test_the_bandwidth_follows_the_scale_but_carries_no_gradient(estimator, bandwidth):
    a, b = torch.tensor(draws(6)).float(), torch.tensor(draws(6, 1.0, seed=1)).float()
    options = {"bandwidth": bandwidth, "estimator": estimator}
    assert float(mmd_loss(9 * a, 9 * b, **options)) == pytest.approx(
        float(mmd_loss(a, b, **options)), rel=1e-4
    )
    factor = torch.ones((), requires_grad=True)
    (moves,) = torch.autograd.grad(mmd_loss(factor * a, factor * b, **options), factor)
    assert abs(float(moves)) > 1e-3


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_descent_brings_domains_together(estimator):
    a, b = torch.tensor(draws(32)).float(), torch.tensor(draws(32, 1.0, seed=1)).float()
    shift = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.SGD([shift], lr=3.0)
    for _ in range(60):
        optimizer.zero_grad()
        mmd_loss(a, b + shift, estimator=estimator).backward()
        optimizer.step()
    apart = a.mean(0) - b.mean(0) - shift.detach()
    assert float(apart.norm()) < 0.3 * float((a.mean(0) - b.mean(0)).norm())


def test_equal_features_give_no_nan():
    a = torch.ones(4, 3, requires_grad=True)
    for estimator in ESTIMATORS:
        loss = mmd_loss(a, torch.ones(4, 3), estimator=estimator)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(a.grad).all()


def test_autocast_leaves_it_in_float32():
    a, b = torch.tensor(draws(20)).float(), torch.tensor(draws(20, 0.2, seed=2)).float()
    expected = float(mmd_loss(a, b))
    with torch.autocast("cpu", torch.bfloat16):
        assert float(mmd_loss(a, b)) == expected


def test_a_single_example_and_an_unknown_estimator_are_errors():
    with pytest.raises(ValueError, match="at least 2 examples"):
        mmd_loss(torch.zeros(1, 3), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="valid: biased, unbiased, linear"):
        mmd_loss(torch.zeros(2, 3), torch.zeros(2, 3), estimator="best")
