"""TIM and the linear probe: calculations of their own, and what they are good for."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from helpers import small
from tlrun.methods.few_shot.rfs import RFS
from tlrun.methods.few_shot.simple_shot import Centre, SimpleShot
from tlrun.methods.few_shot.tim import TIM, spanned

LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def features(queries=9, dim=6):
    generator = torch.Generator().manual_seed(5)
    return (torch.randn(2, n, dim, generator=generator) for n in (queries, 6))


def centre(dim=6):
    part = Centre(dim)
    part.mean.copy_(torch.linspace(-0.3, 0.4, dim))
    return {"centre": part}


def in_numpy(query, support, mean, temperature, lam, alpha, iterations):
    """TIM-ADM of one episode, sum by sum: log p of the queries."""
    z, s = (x.numpy().astype(np.float64) - mean for x in (query, support))
    z, s = (x / np.linalg.norm(x, axis=1)[:, None] for x in (z, s))
    y = np.eye(3)[LABELS.numpy()]
    w = np.stack([s[y[:, k] == 1].mean(0) for k in range(3)])

    def log_p(x):
        return log_softmax(-temperature / 2 * ((x[:, None] - w) ** 2).sum(2), axis=1)

    c, r = lam / (1 + alpha), len(s) / len(z)
    for _ in range(iterations):
        p, known = np.exp(log_p(z)), np.exp(log_p(s))
        q = p ** (1 + alpha) / np.sqrt((p ** (1 + alpha)).sum(0))
        q /= q.sum(1, keepdims=True)
        moved = np.zeros_like(w)
        for k in range(3):
            for x, answers, probability, weight in ((s, y, known, c), (z, q, p, r)):
                for i in range(len(x)):
                    own = answers[i, k] * x[i] + probability[i, k] * (w[k] - x[i])
                    moved[k] += weight * own
            moved[k] /= c * y[:, k].sum() + r * q[:, k].sum()
        w = moved
    return log_p(z)


@pytest.mark.parametrize("iterations", [0, 1, 7])
def test_tim_is_the_papers_update(iterations):
    query, support = features()
    net, settings = centre(), (12.0, 0.3, 0.2, iterations)
    scores = TIM(*settings).classify(net, query, support, LABELS)
    for e in range(2):
        wanted = in_numpy(query[e], support[e], net["centre"].mean.numpy(), *settings)
        np.testing.assert_allclose(scores[e].numpy(), wanted, atol=1e-3)


def test_tim_comes_to_where_its_objective_has_no_slope():
    """The gradient of eq. 9 in w, at q of the closed form: next to nothing of that at the start."""
    query, support = (x[:1].double() for x in features())
    net, lam, alpha = centre(), 0.5, 0.2
    net["centre"].double()
    method, path = TIM(6.0, lam, alpha, 300), []
    log_p, method._log_p = method._log_p, lambda z, w: path.append(w) or log_p(z, w)
    method.classify(net, query, support, LABELS)
    z, s = method.centred(net, query), method.centred(net, support)

    def slope(w):
        w = w.clone().requires_grad_()
        of_query, of_support = log_p(z, w)[0], log_p(s, w)[0]
        q = method._answers(of_query.exp().detach()[None])[0]
        known = of_support[range(6), LABELS].mean()
        loss = -lam * known - (1 + alpha) * (q * of_query).sum(1).mean()
        return torch.autograd.grad(loss, w)[0].norm()

    assert slope(path[-1]) < 0.05 * slope(path[0])


def test_wide_features_are_turned_into_their_span():
    query, support = features(dim=40)  # 15 vectors in 40 dimensions
    asked, known = spanned(query, support)
    assert asked.shape == (2, 9, 15)
    wide = torch.cdist(torch.cat([query, support], 1), torch.cat([query, support], 1))
    narrow = torch.cdist(torch.cat([asked, known], 1), torch.cat([asked, known], 1))
    assert torch.allclose(wide, narrow, atol=1e-4)
    settings = (12.0, 0.3, 0.2, 7)
    scores = TIM(*settings).classify(centre(40), query, support, LABELS)
    wanted = in_numpy(query[0], support[0], centre(40)["centre"].mean.numpy(), *settings)
    np.testing.assert_allclose(scores[0].numpy(), wanted, atol=1e-3)


def test_without_iterations_it_is_simple_shot():
    query, support = features()
    found = TIM(temperature=2.0, iterations=0).classify(centre(), query, support, LABELS)
    plain = SimpleShot().classify(centre(), query, support, LABELS)
    assert torch.allclose(found, plain.log_softmax(2), atol=1e-5)


@pytest.mark.parametrize("c", [0.5, 20.0])
@pytest.mark.parametrize("way", [2, 3])
def test_rfs_is_the_minimum_of_its_objective(c, way):
    query, support = features()
    y = LABELS if way == 3 else LABELS.clamp_max(1)
    scores = RFS(c=c).classify(None, query, support, y)
    for e in range(2):
        z, s = (x[e].numpy().astype(np.float64) for x in (query, support))
        z, s = (x / np.linalg.norm(x, axis=1)[:, None] for x in (z, s))

        def objective(flat, s=s):
            weight, bias = flat[: 6 * way].reshape(way, 6), flat[6 * way :]
            losses = -log_softmax(s @ weight.T + bias, axis=1)[range(6), y.numpy()]
            return 0.5 * (weight**2).sum() + c * losses.sum()

        if way == 2:  # scikit-learn has one vector for two classes, w_1 − w_0, with its own decay

            def objective(flat, s=s):
                margin = (s @ flat[:6] + flat[6]) * (2 * y.numpy() - 1)
                return 0.5 * (flat[:6] ** 2).sum() + c * np.logaddexp(0, -margin).sum()

        start = np.zeros(7 * way if way == 3 else 7)
        best = minimize(objective, start, tol=1e-10).x
        if way == 3:
            wanted = log_softmax(z @ best[:18].reshape(3, 6).T + best[18:], axis=1)
        else:
            margin = z @ best[:6] + best[6]
            wanted = -np.logaddexp(0, np.stack([margin, -margin], 1))
        np.testing.assert_allclose(scores[e].numpy(), wanted, atol=5e-3)


SHORT = (
    "data=digits_episodes",
    "data.tests=[[5,1]]",
    "data.val_episodes=10",
    "data.test_episodes=100",
    "backbone.width=0.25",
    "trainer.steps=100",
    "trainer.eval_every=100",
    "trainer.batch_size=32",
)


def test_all_queries_together_help_new_digits(tmp_path):
    session = small.session(tmp_path / "run", *SHORT, "method=tim")
    session.trainer().fit()
    net, shape = session.net.eval(), session.data.tests[0]
    with torch.no_grad():
        together = session.evaluator.accuracies(net, "target_test", shape, 100)
        session.method.iterations = 0  # its inductive base: the nearest class mean
        singly = session.evaluator.accuracies(net, "target_test", shape, 100)
    gain = together - singly  # on the same episodes
    assert gain.mean() - 1.96 * gain.std() / 10 > 0.01


def test_the_probe_tells_new_digits_apart(tmp_path):
    session = small.session(tmp_path / "run", *SHORT, "method=rfs")
    session.trainer().fit()
    with torch.no_grad():
        found = session.evaluator.accuracies(
            session.net.eval(), "target_test", session.data.tests[0], 100
        )
    assert found.mean() > 0.4  # chance is 0.2
