"""Each validator against numpy loops over its formula."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestCentroid

from tlrun.errors import ConfigError
from tlrun.evaluate.density_ratio import density_ratio, logistic_regression
from tlrun.evaluate.validators import VALIDATORS, SetOutput, compute_validators, validator

torch.set_num_threads(1)
N, D, K = 30, 6, 4


def predictions(labels: bool = False, n: int = N) -> SetOutput:
    draws = torch.Generator().manual_seed(n)
    return SetOutput(
        torch.randn(n, D, generator=draws),
        3 * torch.randn(n, K, generator=draws),
        torch.randint(K, (n,), generator=draws) if labels else None,
    )


def both() -> dict[str, SetOutput]:
    return {"source_val": predictions(labels=True, n=20), "target_val": predictions()}


def score(name: str, **sets: SetOutput) -> float:
    value = compute_validators(sets, 10_000, 0)[name]
    assert value is not None
    return value


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

    u = p / np.linalg.norm(p, axis=1, keepdims=True)  # Saito et al.: outputs, not features
    density = []
    for i in range(N):
        others = np.array([u[i] @ u[j] for j in range(N) if j != i])
        density.append(entropy_of(softmax(others / 0.05)))
    assert values["snd"] == pytest.approx(np.mean(density), abs=1e-12)


def test_neighbourhood_density_by_hand():
    """Two dense groups of confident outputs: each image has its n/2 - 1 like ones as neighbours."""
    z = torch.zeros(10, 2)
    z[:5, 0] = z[5:, 1] = 40.0
    assert score("snd", target_val=SetOutput(torch.randn(10, D), z)) == pytest.approx(math.log(4))
    collapsed = SetOutput(torch.randn(10, D), torch.ones(10, 2))  # why it needs the guard
    assert score("snd", target_val=collapsed) == pytest.approx(math.log(9))


def test_class_confusion():
    """Jin et al. 2020, equations 1 to 6, a pair of classes at a time."""
    z = predictions().logits.double().numpy()
    p = softmax(z / 2.5)
    weight = np.array([1 + math.exp(-entropy_of(row)) for row in p])
    weight = N * weight / weight.sum()
    table = np.array(
        [[sum(weight[i] * p[i, j] * p[i, k] for i in range(N)) for k in range(K)] for j in range(K)]
    )
    table /= table.sum(1, keepdims=True)
    between = sum(table[j, k] for j in range(K) for k in range(K) if j != k) / K
    assert score("mcc", target_val=predictions()) == pytest.approx(-between)


def test_class_confusion_of_certain_and_of_collapsed_predictions():
    certain = 1e4 * torch.eye(K).repeat(5, 1)
    assert score("mcc", target_val=SetOutput(certain, certain)) == pytest.approx(0)
    one_class = certain[:1].repeat(20, 1)
    collapsed = score("mcc", target_val=SetOutput(one_class, one_class))
    assert collapsed == pytest.approx(1 / K - 1)


def test_silhouette_is_that_of_scikit_learn():
    target = predictions()
    guess = target.logits.argmax(1).numpy()
    theirs = silhouette_samples(target.features.double().numpy(), guess, metric="cosine")
    assert score("class_cluster", target_val=target) == pytest.approx(theirs.mean())
    target.logits[:, 0] = -100.0  # class 0 is not used,
    target.logits[3, 0] = 100.0  # but for one image, which counts as 0
    target.features[5] = 0.0
    guess = target.logits.argmax(1).numpy()
    theirs = silhouette_samples(target.features.double().numpy(), guess, metric="cosine")
    assert theirs[3] == 0
    assert score("class_cluster", target_val=target) == pytest.approx(theirs.mean())


def test_reverse_validation_is_the_nearest_centroid():
    """Of vectors of length 1: the mean is made one too, then the nearest has the largest cosine."""
    sets = both()
    source, target = sets["source_val"], sets["target_val"]
    f = [p.features.double().numpy() for p in (source, target)]
    f = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in f]
    model = NearestCentroid().fit(f[1], target.logits.argmax(1).numpy())
    model.centroids_ /= np.linalg.norm(model.centroids_, axis=1, keepdims=True)
    right = (model.predict(f[0]) == source.labels.numpy()).mean()
    assert score("reverse_validation", **sets) == pytest.approx(right)


def test_reverse_validation_tells_right_from_swapped_labels():
    """Features that agree across domains, and predictions on the target that do or do not."""
    y = torch.arange(40) % K
    features = torch.eye(K)[y] + 0.1 * predictions(n=40).features[:, :K]
    source = SetOutput(features, torch.eye(K)[y], y)
    for shift, expected in ((0, 1.0), (1, 0.0)):
        target = SetOutput(features.flip(0), torch.eye(K)[(y.flip(0) + shift) % K])
        found = score("reverse_validation", source_val=source, target_val=target)
        assert found == expected


def shifted(n: int, seed: int) -> dict[str, SetOutput]:
    """Source N(0, 1), target N(1, 1), true class [x > 0.5]; the model says [x > 0]: it errs on
    0 < x < 0.5, 19 % of the source and Φ(−0.5) − Φ(−1) = 15 % of the target."""
    draws = torch.Generator().manual_seed(seed)
    sets = {}
    for split, mean in (("source_val", 0.0), ("target_val", 1.0)):
        x = mean + torch.randn(n, 1, generator=draws)
        sets[split] = SetOutput(x, torch.cat([-x, x], 1), (x[:, 0] > 0.5).long())
    return sets


def test_the_density_ratio_is_that_of_two_gaussians():
    """exp(x − 0.5), the ratio of N(1, 1) and N(0, 1)."""
    sets = shifted(4000, seed=0)
    x = sets["source_val"].features
    found = density_ratio(x, sets["target_val"].features)
    assert found.log() == pytest.approx((x[:, 0] - 0.5).double(), abs=0.25)
    fewer = density_ratio(x, sets["target_val"].features[:1000])  # n_s / n_t makes up for it
    assert float(fewer.mean()) == pytest.approx(1, abs=0.1)
    draws = torch.Generator().manual_seed(1)
    same = density_ratio(*torch.randn(2, 2000, 300, generator=draws))
    assert 0.8 < float(same.mean()) < 1.25  # wide, and still no weight explodes
    assert float(same.max()) < 10


@pytest.mark.parametrize(("n", "width", "apart"), [(500, 256, 0.0), (500, 256, 0.5), (60, 5, 3.0)])
def test_the_logistic_regression_is_that_of_scikit_learn(n, width, apart):
    draws = torch.Generator().manual_seed(n)
    x = torch.randn(2 * n, width, generator=draws)
    x[n:] += apart
    y = torch.arange(2 * n) >= n
    with torch.no_grad():  # as evaluations are
        slope, intercept = logistic_regression(x, y, 1 / width)
    other = LogisticRegression(C=1 / width, tol=1e-10, max_iter=5000).fit(x.double(), y)
    assert slope.numpy() == pytest.approx(other.coef_[0], abs=2e-4)
    assert float(intercept) == pytest.approx(float(other.intercept_[0]), abs=5e-4)


def test_weighted_validation_finds_the_accuracy_on_the_target():
    """IWCV and DEV are centred on it; the control variate takes most of the variance away."""
    true = 1 - 0.1499
    found = np.array(
        [[score(name, **shifted(300, seed)) for name in ("iwcv", "dev")] for seed in range(40)]
    )
    assert found.mean(0) == pytest.approx([true, true], abs=0.02)
    assert found[:, 1].std() < 0.8 * found[:, 0].std()


def test_weighted_validation_by_the_formulas():
    sets = both()
    sets["source_val"].labels[2] = -1  # an image without a label takes no part
    source = sets["source_val"]
    w = density_ratio(source.features, sets["target_val"].features).numpy()
    loss, kept = [], []
    for i in range(20):
        if i != 2:
            wrong = int(source.logits[i].argmax()) != int(source.labels[i])
            loss.append(w[i] * wrong)
            kept.append(w[i])
    assert score("iwcv", **sets) == pytest.approx(np.mean(kept) - np.mean(loss))
    covariance = np.cov(loss, kept)
    eta = -covariance[0, 1] / covariance[1, 1]
    risk = np.mean(loss) + eta * np.mean(kept) - eta  # You et al. 2019, algorithm 1
    assert score("dev", **sets) == pytest.approx(1 - risk)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_sets_give_a_figure_or_none(n):
    values = compute_validators(
        {"source_val": predictions(labels=True, n=n), "target_val": predictions(n=n)}, 100, 0
    )
    assert values["iwcv"] is None
    assert values["dev"] is None
    assert 0 <= values["reverse_validation"] <= 1
    assert -1 <= values["mcc"] <= 0


def test_degenerate_predictions_and_features_give_a_figure_or_none():
    sets = both()
    collapsed = SetOutput(sets["target_val"].features, torch.eye(K)[[1]].repeat(N, 1) * 50)
    values = compute_validators({**sets, "target_val": collapsed}, 100, 0)
    assert values["class_cluster"] is None
    share = float((sets["source_val"].labels == 1).double().mean())
    assert values["reverse_validation"] == pytest.approx(share)
    for constant in (0.0, 0.3):
        flat = {
            s: SetOutput(p.features * 0 + constant, p.logits, p.labels) for s, p in sets.items()
        }
        values = compute_validators(flat, 100, 0)
        assert values["class_cluster"] is None
        assert values["iwcv"] is None
        assert values["dev"] is None
    dead = {s: SetOutput(p.features.clone(), p.logits, p.labels) for s, p in sets.items()}
    for p in dead.values():
        p.features[:, 0] = 0.7  # a constant feature among others is left out
    values = compute_validators(dead, 100, 0)
    sets = {s: SetOutput(p.features[:, 1:], p.logits, p.labels) for s, p in dead.items()}
    assert values["dev"] == pytest.approx(compute_validators(sets, 100, 0)["dev"])


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
    labelled = {**sets, "target_val": SetOutput(*vars(sets["target_val"]).values())}
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


def test_a_validator_of_source_labels_gets_no_target_labels(monkeypatch):
    monkeypatch.setattr("tlrun.evaluate.validators.VALIDATORS", dict(VALIDATORS))

    @validator("spy", reads=("source_val", "target_val"), needs_labels=True)
    def spy(sets):
        assert sets["source_val"].labels is not None
        return float(sets["target_val"].labels is None)

    sets = {"source_val": predictions(labels=True, n=20), "target_val": predictions(labels=True)}
    assert compute_validators(sets, 100, 0)["spy"] == 1.0
