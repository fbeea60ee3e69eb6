"""Optimal transport against loops, all permutations and a linear programme."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from tlrun.losses.distances import squared_distances
from tlrun.losses.optimal_transport import label_costs, optimal_coupling, parts_of_classes


def draws(*size, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=size)).float()


def test_distances_equal_loops():
    a, b = draws(4, 6), draws(5, 6, seed=1) + 100.0  # far off: no cancellation
    expected = [[((x - y) ** 2).sum().item() for y in b.double()] for x in a.double()]
    assert torch.allclose(squared_distances(a, b), torch.tensor(expected), rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(squared_distances(a, b), squared_distances(a, b.clone()))
        assert torch.allclose(squared_distances(a, b), torch.tensor(expected), rtol=1e-4)


def test_distances_have_the_gradient_of_the_differences():
    a, b = draws(4, 3).requires_grad_(), draws(4, 3, seed=1).requires_grad_()
    weights = torch.rand(4, 4)
    ours = torch.autograd.grad((weights * squared_distances(a, b)).sum(), (a, b))
    plain = (weights * (a[:, None] - b[None]).square().sum(2)).sum()
    for mine, wanted in zip(ours, torch.autograd.grad(plain, (a, b)), strict=True):
        assert torch.allclose(mine, wanted, atol=1e-5)


def test_label_costs_equal_loops():
    labels, logits = torch.tensor([2, 0, 1]), draws(4, 3)
    p = torch.softmax(logits.double(), 1)
    expected = [[-np.log(p[j, y].item()) for j in range(4)] for y in labels]
    assert torch.allclose(label_costs(labels, logits), torch.tensor(expected).float(), atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_coupling_is_optimal(seed):
    """Against every permutation, and against the linear programme without that restriction."""
    count, cost = 5, draws(5, 5, seed=seed).square()
    plan = optimal_coupling(cost)
    assert torch.allclose(plan.sum(0), torch.full((count,), 1 / count))
    assert torch.allclose(plan.sum(1), torch.full((count,), 1 / count))
    least = min(sum(cost[i, j].item() for i, j in enumerate(p)) for p in permutations(range(count)))
    assert float((plan * cost).sum()) == pytest.approx(least / count, rel=1e-5)
    rows = np.kron(np.eye(count), np.ones(count))
    columns = np.kron(np.ones(count), np.eye(count))
    programme = linprog(
        cost.flatten().numpy(),
        A_eq=np.vstack([rows, columns]),
        b_eq=np.full(2 * count, 1 / count),
    )
    assert float((plan * cost).sum()) == pytest.approx(programme.fun, rel=1e-5)


def test_equal_sets_are_coupled_one_to_one():
    a = draws(8, 3)
    order = torch.tensor([3, 1, 0, 7, 5, 2, 6, 4])
    plan = optimal_coupling(squared_distances(a, a[order]))
    assert torch.equal(plan.argmax(1)[order], torch.arange(8))


def test_the_plan_has_no_gradient_and_a_cost_that_is_not_finite_no_crash():
    cost = draws(3, 3).requires_grad_()
    assert not optimal_coupling(cost * 2).requires_grad
    assert torch.isfinite(optimal_coupling(torch.full((3, 3), torch.nan))).all()


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="as many source images"):
        optimal_coupling(torch.zeros(3, 4))


@pytest.mark.parametrize("seed", range(3))
def test_the_coupling_of_unequal_source_images_is_optimal(seed):
    """Against the linear programme with these marginals; a row of no part is coupled to nothing."""
    cost, parts = draws(5, 5, seed=seed).square(), torch.tensor([2, 0, 1, 1, 1])
    plan = optimal_coupling(cost, parts)
    assert torch.allclose(plan.sum(0), torch.full((5,), 0.2))
    assert torch.allclose(plan.sum(1), parts / 5)
    rows, columns = np.kron(np.eye(5), np.ones(5)), np.kron(np.ones(5), np.eye(5))
    marginals = np.concatenate([parts.numpy() / 5, np.full(5, 0.2)])
    programme = linprog(cost.flatten().numpy(), A_eq=np.vstack([rows, columns]), b_eq=marginals)
    assert float((plan * cost).sum()) == pytest.approx(programme.fun, rel=1e-5)


def test_parts_give_each_class_its_share():
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    parts = parts_of_classes(labels, torch.tensor([0.5, 0.4, 0.1]))
    assert parts.tolist() == [2, 2, 1, 2, 2, 1, 0, 0, 0, 0]
    rounded = parts_of_classes(labels, torch.tensor([0.44, 0.33, 0.23]))  # 4.4, 3.3, 2.3 parts
    assert [int(rounded[labels == c].sum()) for c in range(3)] == [5, 3, 2]


def test_parts_of_shares_that_the_batch_lacks():
    labels = torch.tensor([0, 0, 2, 2])
    assert parts_of_classes(labels, torch.tensor([0.25, 0.5, 0.25])).tolist() == [1, 1, 1, 1]
    assert parts_of_classes(labels, torch.tensor([0.0, 1.0, 0.0])).tolist() == [1, 1, 1, 1]
