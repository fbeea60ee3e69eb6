import math

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from tlrun.evaluate import metrics

torch.set_num_threads(1)
K = 5


@pytest.fixture
def example():
    """Class 4 has no labels, class 3 is never predicted."""
    draws = np.random.default_rng(0)
    labels, predictions = draws.integers(0, 4, 200), draws.integers(0, 4, 200)
    predictions[predictions == 3] = 4
    return torch.from_numpy(predictions), torch.from_numpy(labels)


def test_counts_and_per_class_accuracy(example):
    predictions, labels = example
    expected = np.zeros((K, K), int)
    for p, y in zip(predictions, labels, strict=True):
        expected[y, p] += 1
    counts = torch.stack(metrics.counts_by_class(predictions, labels, K)).numpy()
    assert (counts == [expected.diagonal(), expected.sum(1), expected.sum(0)]).all()
    per_class = metrics.per_class_accuracy(predictions, labels, K)
    assert math.isnan(per_class[4])
    for c in range(4):
        assert per_class[c] == pytest.approx(float((predictions[labels == c] == c).double().mean()))


def test_shares_equal_scikit_learns(example):
    predictions, labels = example
    assert metrics.accuracy(predictions, labels) == reference.accuracy_score(labels, predictions)
    recalls = [float((predictions[labels == c] == c).double().mean()) for c in range(4)]
    assert metrics.balanced_accuracy(predictions, labels, K) == pytest.approx(np.mean(recalls))
    f1 = reference.f1_score(labels, predictions, average="macro")
    assert metrics.macro_f1(predictions, labels, K) == pytest.approx(f1)


def test_unknown_labels_are_left_out(example):
    predictions, labels = example
    more = (
        torch.cat([predictions, torch.tensor([0, 1])]),
        torch.cat([labels, torch.tensor([-1, -1])]),
    )
    assert metrics.accuracy(*more) == metrics.accuracy(predictions, labels)
    assert metrics.macro_f1(*more, K) == metrics.macro_f1(predictions, labels, K)


def test_nothing_known_is_nan():
    unknown = torch.tensor([0, 1]), torch.tensor([-1, -1])
    assert math.isnan(metrics.accuracy(*unknown))
    assert math.isnan(metrics.balanced_accuracy(*unknown, K))


def test_effective_classes():
    assert metrics.effective_classes(torch.zeros(9, dtype=torch.long), K) == pytest.approx(1)
    assert metrics.effective_classes(torch.arange(K).repeat(3), K) == pytest.approx(K)
    share = [0.75, 0.25]
    expected = math.exp(-sum(s * math.log(s) for s in share))
    assert metrics.effective_classes(torch.tensor([2, 2, 2, 0]), K) == pytest.approx(expected)
