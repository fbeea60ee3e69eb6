"""Zero-shot methods against independent calculations, and the order that the papers publish."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import solve_sylvester
from scipy.special import expit, softmax

from helpers import half, small, zero_shot
from helpers.data_files import real_data
from tlrun.data.problems.label_space import AttributeFacts, LabelSpace, Task
from tlrun.errors import ConfigError
from tlrun.inference.descriptions import handicap
from tlrun.methods.base import Phase, Progress
from tlrun.methods.query import Query
from tlrun.methods.zero_shot.ale import ALE
from tlrun.methods.zero_shot.class_attributes import Signatures
from tlrun.methods.zero_shot.conse import ConSE
from tlrun.methods.zero_shot.dap import DAP
from tlrun.methods.zero_shot.devise import DeViSE, violations
from tlrun.methods.zero_shot.eszsl import ESZSL
from tlrun.methods.zero_shot.iap import IAP
from tlrun.methods.zero_shot.sae import SAE
from tlrun.methods.zero_shot.sje import SJE
from tlrun.models.net import Forward

METHODS = (DAP, IAP, ConSE, ESZSL, SAE, ALE, DeViSE, SJE)
torch.set_num_threads(1)


def case(method, missing=False):
    data = zero_shot.data(missing=missing)
    net = zero_shot.built(method, data)
    x = torch.randn(7, 10, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return data, net, x, method.predict(net, x, Query()).scores.double().numpy()


def unit_rows(rows, training):
    """Rows of length 1, after scaling by the training classes' largest values."""
    scaled = rows / np.abs(rows[:training]).max(0)
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def standardized(x, of):
    centred = of - of.mean(0)
    return (x - of.mean(0)) / np.sqrt((centred**2).sum(1).mean())


def head_logits(net, x):
    weight, bias = (p.detach().double().numpy() for p in net["classifier"].out.parameters())
    return x.double().numpy() @ weight.T + bias


def test_eszsl_is_the_minimum_of_its_objective():
    """By one big least-squares problem over vec(V), with neither of the two inverses."""
    data, _net, x, scores = case(ESZSL(gamma=0.01, lam=0.3))
    X, y, rows = zero_shot.train_arrays(data)
    S = unit_rows(rows, 4)
    Z = standardized(X, X)
    Y = 2 * np.eye(4)[y] - 1
    gamma, lam = 0.01 * len(X), 0.3
    A, B = Z.T @ Z + gamma * np.eye(10), S[:4].T @ S[:4] + lam * np.eye(6)
    V = np.linalg.solve(np.kron(A, B), (Z.T @ Y @ S[:4]).ravel()).reshape(10, 6)
    wanted = standardized(x.double().numpy(), X) @ V @ S.T
    np.testing.assert_allclose(scores, wanted, atol=2e-5)


def test_sae_is_scipys_solution_of_the_sylvester_equation():
    data, _net, x, scores = case(SAE(lam=0.7))
    X, y, rows = zero_shot.train_arrays(data)
    S, Z = unit_rows(rows, 4), standardized(X, X)
    W = solve_sylvester(S[y].T @ S[y] + 1e-9 * np.eye(6), 0.7 * Z.T @ Z, 1.7 * S[y].T @ Z)
    point = standardized(x.double().numpy(), X) @ W.T
    point /= np.linalg.norm(point, axis=1, keepdims=True)
    np.testing.assert_allclose(scores, point @ S.T, atol=1e-5)


@pytest.mark.parametrize("missing", [False, True])
def test_dap_is_the_product_over_attributes(missing):
    data, net, x, scores = case(DAP(), missing)
    _, _, rows = zero_shot.train_arrays(data)
    p = expit(head_logits(net, x))
    limit = np.nanmean(rows[:4])
    for z in range(len(rows)):
        product = np.ones(len(p))
        for m in range(6):
            column = rows[:4, m][~np.isnan(rows[:4, m])] > limit
            prior = column.mean()
            if np.isnan(rows[z, m]) or prior in (0.0, 1.0):
                continue
            on = rows[z, m] > limit
            product *= (p[:, m] if on else 1 - p[:, m]) / (prior if on else 1 - prior)
        np.testing.assert_allclose(np.exp(scores[:, z]), product, rtol=1e-4)


def iap_by_numpy(rows, logits):
    """Log-posterior ratios (n, C) from the head's logits (n, 4)."""
    binary = rows > rows[:4].mean()
    p = softmax(logits, axis=1) @ binary[:4]
    prior = binary[:4].mean(0)
    use = (prior > 0) & (prior < 1)
    p, prior, binary = p[:, use].clip(1e-6, 1 - 1e-6), prior[use], binary[:, use]
    ratio = np.where(binary[None], p[:, None] / prior, (1 - p[:, None]) / (1 - prior))
    return np.log(ratio).sum(2)


def test_iap_sums_over_the_seen_classes():
    data, net, x, scores = case(IAP())
    _, _, rows = zero_shot.train_arrays(data)
    np.testing.assert_allclose(scores, iap_by_numpy(rows, head_logits(net, x)), atol=1e-4)


@pytest.mark.parametrize("autocast", [False, True])
def test_iap_with_a_head_that_is_sure(autocast):
    """Logits 60 apart: in bf16 1 − 1e-6 was 1, and every score NaN."""
    data = zero_shot.data()
    net = zero_shot.built(IAP(), data)
    _, _, rows = zero_shot.train_arrays(data)
    logits = 60 * torch.eye(4)
    out = Forward(torch.zeros(4, 10).bfloat16(), logits.bfloat16() if autocast else logits)
    with half.autocast(autocast):
        scores = IAP().scores(net, out)
    assert scores.dtype == torch.float32
    wanted = iap_by_numpy(rows, logits.double().numpy())
    np.testing.assert_allclose(scores.numpy(), wanted, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_zero_shot_method_gives_the_same_scores_under_autocast(method):
    _, net, x, scores = case(method())
    with torch.no_grad(), half.autocast():
        found = method().predict(net, x, Query()).scores
    np.testing.assert_allclose(found.double().numpy(), scores, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("center", [False, True])
def test_conse_is_the_cosine_of_the_average_of_the_best(center):
    data, net, x, scores = case(ConSE(top=3, center=center))
    _, _, rows = zero_shot.train_arrays(data)
    S = rows / np.abs(rows[:4]).max(0)
    p = softmax(head_logits(net, x), axis=1)
    p[p < np.sort(p, axis=1)[:, -3:-2]] = 0
    p /= p.sum(1, keepdims=True)
    middle = S[:4].mean(0) * center
    f = p @ S[:4] - middle
    s = S - middle
    cosine = f @ s.T / np.linalg.norm(f, axis=1)[:, None] / np.linalg.norm(s, axis=1)
    np.testing.assert_allclose(scores, cosine, atol=1e-5)


def test_half_tiger_half_lion_is_the_liger():
    facts = AttributeFacts(
        [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.9, 0.0, 0.2], [0.5, 0.5, 1.0]],
        attribute_names=["orange", "mane", "big"],
        training=["tiger", "lion", "zebra"],
        validation=[],
        unseen=["liger"],
        ready_features=True,
        gamma=None,
    )
    method = ConSE(top=2)
    net = zero_shot.Net(zero_shot.MLP((3,), hidden=()), (3,), head={"hidden": []})
    net.add("signatures", Signatures(facts))
    net.add("classifier", net.new_head(3))
    torch.nn.init.eye_(net["classifier"].out.weight)
    torch.nn.init.zeros_(net["classifier"].out.bias)
    x = torch.tensor([[9.0, 9.0, 0.0]])
    scores = method.predict(net, x, Query()).scores
    assert scores.argmax(1).item() == 3
    assert scores[0, 3].item() == pytest.approx(1.0)  # its row is the mean of the two
    names = ["tiger", "lion", "zebra", "liger"]
    space = LabelSpace({"class": Task("class", "attributes", tuple(names))}, facts)
    for gamma, candidates in ((0.0, "all"), (0.3, "all"), (None, "unseen")):
        taken = handicap(space, {}, gamma, candidates)
        assert names[int((scores - taken).argmax(1))] == "liger"
    sure = method.predict(net, torch.tensor([[9.0, 0.0, 0.0]]), Query()).scores
    assert names[int(sure.argmax(1))] == "tiger"
    assert method.explain_predictions(net, x, names) == ["50 % tiger, 50 % lion"]


def test_the_three_hinges():
    """Two images, four classes; worked out by hand: ALE with l_3 / 3 = (1 + 1/2 + 1/3) / 3."""
    score = torch.tensor([[1.0, 0.95, 0.2, 1.3], [0.0, 0.0, 5.0, 0.0]])
    found = violations(score, torch.tensor([0, 2]), 0.1)
    wanted = torch.tensor([[0.0, 0.05, 0.0, 0.4], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(found, wanted)
    assert DeViSE(0.1).hinge(found).item() == pytest.approx(0.45 / 2)
    assert SJE(0.1).hinge(found).item() == pytest.approx(0.4 / 2)
    assert ALE(0.1).hinge(found).item() == pytest.approx((1 + 1 / 2) / 2 * 0.45 / 2)


def test_bilinear_scores_are_x_w_phi():
    data, net, x, scores = case(ALE())
    X, _, rows = zero_shot.train_arrays(data)
    W = net["mapping"].weight.detach().double().numpy()
    wanted = standardized(x.double().numpy(), X) @ W @ unit_rows(rows, 4).T
    np.testing.assert_allclose(scores, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", [ALE, DeViSE, SJE])
def test_the_mapping_alone_is_trained_after_the_features(kind):
    data = zero_shot.data()
    method = kind()
    net = zero_shot.built(method, data)
    stream = data.role("source_train")
    index = torch.arange(16)
    batch = {"source": small.Batch(stream.read(index), stream.labels[index], index)}
    (update,) = method.step(net, batch, Phase(), Progress(0, 1))
    assert update.parts == ("mapping",)
    before = update.losses["ranking"].item()
    optimizer = torch.optim.SGD(net["mapping"].parameters(), lr=0.5)
    for _ in range(50):
        optimizer.zero_grad()
        (update,) = method.step(net, batch, Phase(), Progress(0, 1))
        update.losses["ranking"].backward()
        optimizer.step()
    assert update.losses["ranking"].item() < 0.5 * before


@pytest.mark.parametrize("kind", METHODS)
def test_a_class_added_later_changes_no_score_of_the_others(kind):
    data = zero_shot.data(missing=True)
    net = zero_shot.built(kind(), data)
    x = torch.randn(5, 10)
    wider = zero_shot.data(missing=True)
    wider.facts.attributes.append([0.1, 0.9, None, 0.9, 0.1, 0.1])
    other = zero_shot.built(kind(), wider)
    for name, part in net.parts.items():
        other[name].load_state_dict(part.state_dict())
    with torch.no_grad():
        scores = kind().predict(net, x, Query()).scores
        more = kind().predict(other, x, Query()).scores
    assert more.shape == (5, 9)
    assert more.isfinite().all()
    torch.testing.assert_close(more[:, :8], scores)


def test_hyper_parameters_come_from_the_validation_classes_alone():
    """Labels and images of unseen classes play no part, and the choice is among the grid."""
    method, other = ESZSL(), ESZSL()
    data, spoiled = zero_shot.data(), zero_shot.data()
    test = spoiled.domains["target"].test
    test.labels = test.labels.flip(0)
    spoiled.facts.attributes[-1] = [0.3] * 6
    one, two = zero_shot.built(method, data), zero_shot.built(other, spoiled)
    assert method.chosen == other.chosen
    assert torch.equal(one["mapping"].weight, two["mapping"].weight)


def test_mistakes():
    for kind, wrong in ((DAP, {"threshold": "row"}), (IAP, {"threshold": "row"})):
        with pytest.raises(ConfigError, match="one of overall, column"):
            small.configured(kind, **wrong)
    with pytest.raises(ConfigError, match="whole number from 1"):
        small.configured(ConSE, top=0)
    with pytest.raises(ConfigError, match="above 0"):
        small.configured(ALE, margin=0.0)
    net = zero_shot.Net(zero_shot.MLP((10,), hidden=(4,)), (10,))
    data = zero_shot.data()
    with pytest.raises(ConfigError, match=r"backbone\.hidden=\[\]"):
        ESZSL().build(ESZSL().phases(data)[0], net, data)


# ---- the published order ------------------------------------------------------------------------


def figures(folder: Path, *overrides: str):
    session = small.session(
        folder,
        "data=awa2_world",
        "backbone=mlp",
        "backbone.hidden=[]",
        "seed=0",
        "select=last",
        "trainer.batch_size=64",
        "trainer.steps=300",
        "trainer.eval_every=300",
        "optimizer.lr=0.01",
        *overrides,
    )
    session.trainer().fit()
    with torch.no_grad():
        return session.evaluator.test(session.net.eval())[0]


@real_data
def test_the_published_order_on_the_synthetic_animals(tmp_path, monkeypatch):
    """Xian et al. (2018) on AWA2: ALE 62.5, ESZSL 58.6 > DAP 46.1 > ConSE 44.5; ConSE's H 1.0."""
    monkeypatch.setattr(small, "QUICK", tuple(w for w in small.QUICK if "width" not in w))
    found = {name: figures(tmp_path / name, f"method={name}") for name in ORDER}
    t1 = {name: row["unseen/accuracy"] for name, row in found.items()}
    assert min(t1["ale"], t1["eszsl"]) > t1["dap"] > t1["conse"] > 0.1, t1
    conse = found["conse"]
    assert conse["harmonic_mean"] < 0.1
    assert conse["calibrated/harmonic_mean"] > conse["harmonic_mean"] + 0.2


ORDER = ("ale", "eszsl", "dap", "conse")
