"""Each validator against numpy loops over its formula."""

import math

import numpy as np
import pytest
import torch

from tlrun.errors import ConfigError
from tlrun.evaluate.validators import VALIDATORS, Predictions, compute_validators, validator

torch.set_num_threads(1)
N, D, K = 30, 6, 4


def predictions(labels: bool = False, n: int = N) -> Predictions:
    draws = torch.Generator().manual_seed(n)
    return Predictions(
        torch.randn(n, D, generator=draws),
        3 * torch.randn(n, K, generator=draws),
        torch.randint(K, (n,), generator=draws) if labels else None,
    )


def both() -> dict[str, Predictions]:
    return {"source_val": predictions(labels=True, n=20), "target_val": predictions()}


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def entropy_of(p) -> float:
    return -sum(float(v) * math.log(v) for v in p if v > 0)


def test_the_formulas():
    sets = both()
    values = compute_validators(sets, max_images=1000, seed=0)
    source, target = sets["source_val"], sets["target_val"]
    right = [int(z.argmax()) == int(y) for z, y in zip(source.logits, source.labels, strict=True)]
    assert values["source_accuracy"] == pytest.approx(np.mean(right))

    p = softmax(target.logits.double().numpy())
    confident = np.mean([entropy_of(row) for row in p])
    diverse = entropy_of(p.mean(0))
    assert values["entropy"] == pytest.approx(-confident)
    assert values["diversity"] == pytest.approx(diverse)
    assert values["information_maximization"] == pytest.approx(diverse - confident)
    assert values["bnm"] == pytest.approx(np.linalg.svd(p, compute_uv=False).sum() / N)

    f = target.features.double().numpy()
    f = f / np.linalg.norm(f, axis=1, keepdims=True)
    density = []
    for i in range(N):
        others = np.array([f[i] @ f[j] for j in range(N) if j != i])
        density.append(entropy_of(softmax(others / 0.05)))
    assert values["snd"] == pytest.approx(np.mean(density))


def test_absent_splits_or_labels_give_none():
    only_target = compute_validators({"target_val": predictions()}, 100, 0)
    assert only_target["source_accuracy"] is None
    assert only_target["bnm"] is not None
    unlabelled = compute_validators({"source_val": predictions()}, 100, 0)
    assert set(unlabelled.values()) == {None}
    empty = compute_validators({"target_val": predictions(n=0)}, 100, 0)
    assert set(empty.values()) == {None}


def test_values_that_are_not_finite_give_none():
    broken = predictions()
    broken.logits[0, 0] = float("nan")
    values = compute_validators({"target_val": broken}, 100, 0)
    assert values["entropy"] is None
    assert values["information_maximization"] is None


def test_quadratic_ones_see_a_seeded_subset_only():
    sets = both()
    few, again, other = (compute_validators(sets, 10, seed)["snd"] for seed in (0, 0, 1))
    assert few == again
    assert few != other
    assert few <= math.log(9)
    whole = compute_validators(sets, 1000, 0)
    assert compute_validators(sets, 10, 0)["entropy"] == whole["entropy"]


def test_target_labels_change_nothing():
    sets = both()
    labelled = {**sets, "target_val": Predictions(*vars(sets["target_val"]).values())}
    labelled["target_val"].labels = torch.zeros(N, dtype=torch.long)
    assert compute_validators(labelled, 100, 0) == compute_validators(sets, 100, 0)


def test_a_validator_of_ones_own(monkeypatch):
    monkeypatch.setattr("tlrun.evaluate.validators.VALIDATORS", dict(VALIDATORS))

    @validator("largest_logit")
    def largest_logit(sets):
        return float(sets["target_val"].logits.max())

    sets = both()
    assert compute_validators(sets, 100, 0)["largest_logit"] == float(
        sets["target_val"].logits.max()
    )
    with pytest.raises(ConfigError, match="must not read target labels"):
        validator("cheat", reads=("target_val",), needs_labels=True)
