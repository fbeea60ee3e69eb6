"""The domain-adversarial pieces against independent calculations."""

import math

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy

from tlrun.losses.adversarial import (
    RandomisedMultilinear,
    domain_accuracy,
    domain_loss,
    entropy_weights,
    fooling_loss,
    multilinear,
    reversal_strength,
    reverse_gradient,
)


def test_domain_loss_equals_the_formula_in_numpy():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=7), rng.normal(size=4)
    expected = 0.5 * np.log1p(np.exp(-source)).mean() + 0.5 * np.log1p(np.exp(target)).mean()
    assert float(domain_loss(torch.tensor(source), torch.tensor(target))) == pytest.approx(
        expected, rel=1e-6
    )


def test_reversed_gradient_is_minus_strength_times_the_plain_one():
    x = torch.randn(5, 3, requires_grad=True)
    weights = torch.randn(3)
    (plain,) = torch.autograd.grad((x @ weights).square().sum(), x)
    y = reverse_gradient(x, 0.3)
    assert torch.equal(y, x)
    (reversed_,) = torch.autograd.grad((y @ weights).square().sum(), x)
    assert torch.allclose(reversed_, -0.3 * plain)


def test_domain_accuracy_weights_both_domains_alike():
    source, target = torch.tensor([1.0, 1.0, 1.0, -1.0]), torch.tensor([1.0, -1.0])
    assert float(domain_accuracy(source, target)) == pytest.approx(0.5 * (0.75 + 0.5))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_strength_follows_the_paper(p):
    assert reversal_strength("sigmoid", p) == pytest.approx(math.tanh(5 * p))  # 2/(1+e^(-10p)) - 1
    assert reversal_strength("linear", p) == p
    assert reversal_strength("constant", p) == 1.0


def test_unknown_schedule_of_lambda():
    with pytest.raises(ValueError, match="sigmoid, linear, constant"):
        reversal_strength("sigmiod", 0.0)


def test_the_weighted_domain_loss_equals_the_formula_in_numpy():
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=7), rng.normal(size=4)
    w, v = rng.uniform(1, 2, size=7), rng.uniform(1, 2, size=4)
    expected = 0.5 * np.average(np.log1p(np.exp(-source)), weights=w)
    expected += 0.5 * np.average(np.log1p(np.exp(target)), weights=v)
    assert float(domain_loss(*map(torch.tensor, (source, target, w, v)))) == pytest.approx(
        expected, rel=1e-6
    )


def test_the_fooling_loss_is_that_of_the_other_label():
    target = np.random.default_rng(0).normal(size=6)
    expected = np.log1p(np.exp(-target)).mean()
    assert float(fooling_loss(torch.tensor(target))) == pytest.approx(expected, rel=1e-6)


def test_entropy_weights_equal_scipy_and_have_no_gradient():
    logits = np.random.default_rng(0).normal(size=(5, 4)) * 3
    expected = 1 + np.exp(-entropy(softmax(logits, axis=1), axis=1))
    ours = entropy_weights(torch.tensor(logits, requires_grad=True))
    assert ours.numpy() == pytest.approx(expected, rel=1e-5)
    assert not ours.requires_grad
    sure, unsure = entropy_weights(torch.tensor([[80.0, 0, 0, 0], [1.0, 1, 1, 1]]))
    assert float(sure) == pytest.approx(2.0)
    assert float(unsure) == pytest.approx(1.25)


def test_the_multilinear_map_equals_loops():
    rng = np.random.default_rng(0)
    features, classes = rng.normal(size=(3, 4)), rng.uniform(size=(3, 2))
    ours = multilinear(torch.tensor(features), torch.tensor(classes)).numpy()
    expected = [[f * g for f in row for g in p] for row, p in zip(features, classes, strict=True)]
    assert ours == pytest.approx(np.array(expected), rel=1e-6)


def test_the_randomised_map_equals_numpy():
    projection = RandomisedMultilinear(4, 2, 16)
    rng = np.random.default_rng(0)
    features, classes = rng.normal(size=(3, 4)), rng.uniform(size=(3, 2))
    r_f, r_g = projection.of_features.double().numpy(), projection.of_classes.double().numpy()
    expected = (features @ r_f) * (classes @ r_g) / math.sqrt(16)
    ours = projection(torch.tensor(features), torch.tensor(classes))
    assert ours.numpy() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_randomised_map_keeps_inner_products_on_average():
    torch.manual_seed(0)
    features, classes = torch.randn(2, 6), torch.rand(2, 3)
    whole = multilinear(features, classes)
    products = []
    for _ in range(20):
        projected = RandomisedMultilinear(6, 3, 4096)(features, classes)
        products.append(projected @ projected.T)
    assert torch.allclose(torch.stack(products).mean(0), whole @ whole.T, rtol=0.05, atol=0.1)


def test_the_projections_are_saved_and_not_trained():
    torch.manual_seed(0)
    one, other = RandomisedMultilinear(6, 3, 8), RandomisedMultilinear(6, 3, 8)
    assert not list(one.parameters())
    x, p = torch.randn(2, 6), torch.rand(2, 3)
    assert not torch.allclose(one(x, p), other(x, p))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x, p), other(x, p))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(one(x, p), other(x.float(), p))
        assert one(x.bfloat16(), p.bfloat16()).dtype == torch.float32
