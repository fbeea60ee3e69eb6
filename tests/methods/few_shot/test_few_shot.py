"""Each few-shot method against its formula in numpy, and what it is good for."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from helpers import small
from tlrun.data.problems.episodes import EpisodeBatch, split
from tlrun.data.problems.label_space import EpisodeFacts, Shape
from tlrun.methods.base import Output, Phase, Progress
from tlrun.methods.few_shot.anil import ANIL
from tlrun.methods.few_shot.baseline import Baseline
from tlrun.methods.few_shot.baseline_pp import BaselinePP, CosineHead
from tlrun.methods.few_shot.episodic import FewShot, class_means
from tlrun.methods.few_shot.fomaml import FOMAML
from tlrun.methods.few_shot.maml import MAML
from tlrun.methods.few_shot.matching_net import MatchingNet
from tlrun.methods.few_shot.protonet import ProtoNet
from tlrun.methods.few_shot.relation_net import RelationNet, map_shape
from tlrun.methods.few_shot.simple_shot import SimpleShot
from tlrun.methods.query import Query, Support
from tlrun.models.backbones import Conv4
from tlrun.models.net import Net

SHAPE = Shape(way=3, shot=2, query=4)
LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
DATA = SimpleNamespace(
    facts=EpisodeFacts(SHAPE, []), source_classes=tuple("abcdefg"), num_classes=3
)


def features(dim=8):
    """Query (2, 5, D) and support (2, 6, D) of two episodes."""
    generator = torch.Generator().manual_seed(3)
    return (torch.randn(2, n, dim, generator=generator) for n in (5, 6))


def net_of(method):
    torch.manual_seed(0)
    net = Net(Conv4((1, 16, 16), width=0.125), (1, 16, 16), head={"hidden": []})
    for phase in method.phases(DATA):
        method.build(phase, net, DATA)
    return net


def batch(shape=SHAPE):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape.images, 1, 16, 16, generator=generator)
    return {"source": EpisodeBatch(x, None, torch.arange(shape.images), shape)}


def cosines(a, b):
    return (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


def test_protonet_is_the_squared_distance_to_the_class_mean():
    query, support = features()
    scores = ProtoNet(scale=0.5).classify(None, query, support, LABELS)
    for e in range(2):
        for q in range(5):
            for k in range(3):
                centre = support[e, k == LABELS].numpy().mean(0)
                wanted = -0.5 * np.sum((query[e, q].numpy() - centre) ** 2)
                assert scores[e, q, k].item() == pytest.approx(wanted, rel=1e-4)


def test_classes_may_have_different_numbers_of_images():
    query, support = features()
    y = torch.tensor([0, 0, 0, 0, 1, 1])
    scores = ProtoNet().classify(None, query, support, y)
    centre = support[0, :4].mean(0)
    assert torch.allclose(scores[0, 0, 0], -(query[0, 0] - centre).square().sum(), rtol=1e-4)


def test_matching_net_is_attention_by_cosine():
    query, support = features()
    scores = MatchingNet(scale=2.0).classify(None, query, support, LABELS).softmax(2)
    for e in range(2):
        weight = np.exp(2.0 * cosines(query[e].numpy(), support[e].numpy()))
        weight /= weight.sum(1, keepdims=True)
        wanted = np.stack([weight[:, k == LABELS].sum(1) for k in range(3)], 1)
        np.testing.assert_allclose(scores[e].numpy(), wanted, rtol=1e-4)


def test_simple_shot_centres_and_normalises():
    query, support = features()
    method = SimpleShot()
    net = net_of(method)
    mean = torch.full((8,), 0.3)
    net["centre"].mean.copy_(mean)
    scores = method.classify(net, query, support, LABELS)
    q, s = (query[1] - mean).numpy(), (support[1] - mean).numpy()
    q, s = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (q, s))
    centres = np.stack([s[k == LABELS].mean(0) for k in range(3)])
    wanted = -((q[:, None] - centres[None]) ** 2).sum(2)
    np.testing.assert_allclose(scores[1].numpy(), wanted, atol=1e-5)


def test_baseline_is_gradient_descent_on_the_cross_entropy():
    query, support = features()
    method = Baseline(fit_steps=7, fit_lr=0.3, fit_decay=0.01)
    with torch.no_grad():
        scores = method.classify(None, query, support, LABELS)
    x, target = support[1].double().numpy(), np.eye(3)[LABELS.numpy()]
    weight, bias = np.zeros((3, 8)), np.zeros(3)
    for _ in range(7):
        p = np.exp(x @ weight.T + bias)
        slope = (p / p.sum(1, keepdims=True) - target) / len(x)
        weight, bias = (
            weight - 0.3 * (slope.T @ x + 0.01 * weight),
            bias - 0.3 * (slope.sum(0) + 0.01 * bias),
        )
    np.testing.assert_allclose(
        scores[1].numpy(), query[1].double().numpy() @ weight.T + bias, rtol=1e-4, atol=1e-5
    )


def test_baseline_pp_is_a_scaled_cosine():
    head = CosineHead(8, 3, scale=4.0)
    query, support = features()
    wanted = 4.0 * cosines(query[0].numpy(), head.weight.detach().numpy())
    np.testing.assert_allclose(head(query[0]).detach().numpy(), wanted, rtol=1e-4, atol=1e-5)
    scores = BaselinePP(scale=4.0, fit_steps=0).classify(None, query, support, LABELS)  # imprinted
    unit = support[0].numpy() / np.linalg.norm(support[0].numpy(), axis=1, keepdims=True)
    centres = np.stack([unit[k == LABELS].mean(0) for k in range(3)])
    np.testing.assert_allclose(
        scores[0].numpy(), 4.0 * cosines(query[0].numpy(), centres), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("method", [Baseline(), BaselinePP()])
def test_the_head_of_a_baseline_is_fitted_under_autocast_too(method):
    query, support = features()
    exact = method.classify(None, query, support, LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = method.classify(None, query, support, LABELS)
    torch.testing.assert_close(scores.float(), exact, rtol=0.05, atol=0.1)


def test_relation_net_compares_sums_and_squares_the_error():
    method = RelationNet(hidden=4)
    net = net_of(method).eval()
    assert map_shape(net) == (8, 1, 1)
    drawn = batch()
    support, query = split(net(drawn["source"].x, head=None).features, SHAPE)
    update = next(method.step(net, drawn, Phase(), Progress(0, 1)))
    total = 0.0
    for q in range(12):
        for k in range(3):
            pair = torch.cat([query[0, q], support[0, k == LABELS].sum(0)]).reshape(1, 16, 1, 1)
            r = net["relation"].layers(pair).sigmoid().item()
            total += (r - float(q // 4 == k)) ** 2
    assert update.losses["relation"].item() == pytest.approx(total / 12, rel=1e-4)


# ---- MAML -----------------------------------------------------------------------------------


class Slope(nn.Module):
    """One weight and no head of its own: f(x) = w x."""

    feature_dim, stage_names = 1, ("fc",)

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 1, bias=False)

    def forward(self, x):
        return self.fc(x)


def maml_net(method):
    torch.manual_seed(0)
    net = Net(Slope(), (1,), head={"hidden": []}).double()
    method.build(Phase(), net, SimpleNamespace(facts=EpisodeFacts(Shape(2, 1, 1), [])))
    return net.double()


def episode():
    shape = Shape(way=2, shot=1, query=2)
    x = torch.tensor([[0.5], [0.9], [-0.3], [-1.2], [0.4], [0.1]], dtype=torch.float64)
    return {"source": EpisodeBatch(x, None, torch.arange(6), shape)}


def meta_loss(theta, lr, frozen=None):
    """The loss after one inner step in numpy; theta = (w, h0, h1, b0, b1). frozen: a fixed inner
    slope, for the first-order form."""
    x = episode()["source"].x.numpy().reshape(2, 3)
    support, query = x[:, 0], x[:, 1:].reshape(-1)
    slope = inner_slope(theta, support) if frozen is None else frozen
    w, h, b = unpack(theta - lr * slope)
    return cross_entropy(np.outer(w * query, h) + b, np.array([0, 0, 1, 1]))


def unpack(theta):
    return theta[0], theta[1:3], theta[3:5]


def cross_entropy(scores, target):
    p = np.exp(scores)
    p /= p.sum(1, keepdims=True)
    return -np.log(p[np.arange(len(target)), target]).mean()


def inner_slope(theta, support):
    return numeric(
        lambda t: cross_entropy(
            np.outer(unpack(t)[0] * support, unpack(t)[1]) + unpack(t)[2], np.array([0, 1])
        ),
        theta,
    )


def numeric(function, theta, step=1e-4):
    units = np.eye(len(theta)) * step
    return np.array([(function(theta + u) - function(theta - u)) / (2 * step) for u in units])


@pytest.mark.parametrize(("kind", "first_order"), [(MAML, False), (FOMAML, True)])
def test_maml_against_finite_differences(kind, first_order):
    method = kind(inner_lr=0.7)
    net = maml_net(method)
    update = next(method.step(net, episode(), Phase(), Progress(0, 1)))
    update.losses["query"].backward()
    theta = np.concatenate([p.detach().numpy().ravel() for p in net.parameters()])
    found = np.concatenate([p.grad.numpy().ravel() for p in net.parameters()])
    support = episode()["source"].x.numpy().reshape(2, 3)[:, 0]
    fixed = inner_slope(theta, support) if first_order else None
    wanted = numeric(lambda t: meta_loss(t, 0.7, fixed), theta)
    assert update.losses["query"].item() == pytest.approx(meta_loss(theta, 0.7), rel=1e-4)
    np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-5)
    other = numeric(
        lambda t: meta_loss(t, 0.7, None if first_order else inner_slope(theta, support)), theta
    )
    assert not np.allclose(found, other, rtol=2e-3, atol=1e-5)  # the two forms differ here


def test_anil_changes_the_head_alone():
    method = ANIL(inner_lr=0.5)
    net = maml_net(method)
    known = Support(episode()["source"].x[:2], torch.tensor([0, 1]))
    fast = method.inner_loop(net, known, 1, training=True)
    assert {name.split(".")[1] for name in fast} == {"classifier"}
    whole = MAML(inner_lr=0.5).inner_loop(net, known, 1, training=True)
    assert len(whole) == len(list(net.parameters()))
    for name, value in fast.items():
        assert torch.allclose(value, whole[name])


@pytest.mark.parametrize("kind", [MAML, FOMAML, ANIL])
def test_what_is_frozen_is_no_part_of_the_inner_steps(kind):
    method = kind()
    net = net_of(method)
    still = ("backbone.conv1", "backbone.conv2")
    for stage in still:
        for weight in net.parameters_in(stage):
            weight.requires_grad_(False)
    method.start(Phase(frozen=("backbone[:2]",)), net, DATA)
    assert next(method.step(net, batch(), Phase(), Progress(0, 1))).losses["query"].requires_grad
    known = Support(torch.randn(3, 1, 16, 16), torch.arange(3))
    changed = method.inner_loop(net, known, 1, training=False)
    assert changed
    assert not any(name.startswith(f"parts.{stage}.") for name in changed for stage in still)


def test_frozen_batch_norm_is_running_after_training_as_in_it():
    """Also in a method that a run folder has brought back."""
    method, again = MAML(test_steps=0), MAML(test_steps=0)
    net = net_of(method).eval()
    method.start(Phase(frozen=("backbone",)), net, DATA)
    again.load_state_dict(method.state_dict())
    x, known = torch.randn(6, 1, 16, 16), Support(torch.randn(3, 1, 16, 16), torch.arange(3))
    with torch.no_grad():
        wanted = net(x).logits
        torch.testing.assert_close(again.predict(net, x, Query(support=known)).scores, wanted)
        by_queries = MAML(test_steps=0).predict(net, x, Query(support=known)).scores
    assert not torch.allclose(by_queries, wanted, atol=1e-3)


def test_maml_leaves_the_net_as_it_was():
    method = MAML()
    net = net_of(method).eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    support = Support(torch.randn(3, 1, 16, 16), torch.arange(3))
    with torch.no_grad():
        several = method.predict(net, torch.randn(4, 1, 16, 16), Query(support=support)).scores
        one = method.predict(net, torch.randn(1, 1, 16, 16), Query(support=support)).scores
    assert several.shape == (4, 3)
    assert one.shape == (1, 3)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not net.training
    assert not any(m.training for m in net.modules())
    two = Support(torch.randn(2, 1, 16, 16), torch.arange(2))
    assert method.predict(net, torch.randn(4, 1, 16, 16), Query(support=two)).scores is None


def test_maml_batch_norm_is_by_the_queries_or_running():
    x, support = torch.randn(6, 1, 16, 16), Support(torch.randn(3, 1, 16, 16), torch.arange(3))
    for transductive in (True, False):
        method = MAML(transductive=transductive)
        net = net_of(method).eval()
        with torch.no_grad():
            together = method.predict(net, x, Query(support=support)).scores[:3]
            apart = method.predict(net, x[:3], Query(support=support)).scores
        assert torch.allclose(together, apart, atol=1e-4) is not transductive


# ---- what they are good for -----------------------------------------------------------------

SHORT = (
    "data=digits_episodes",
    "data.tests=[[5,1]]",
    "data.query=5",
    "data.val_episodes=20",
    "data.test_episodes=60",
    "backbone.width=0.25",
    "trainer.eval_every=100",
)


def figures_of(folder, *overrides):
    session = small.session(folder, *SHORT, *overrides)
    session.trainer().fit()
    with torch.no_grad():
        return session, session.evaluator.test(session.net.eval())[0]


def accuracy(figures):
    return figures["few_shot/5way_1shot/accuracy"], figures["few_shot/5way_1shot/ci95"]


@pytest.mark.parametrize(
    "name", ["matching_net", "relation_net", "baseline", "baseline_pp", "simple_shot"]
)
def test_new_digits_are_told_apart_far_above_chance(name, tmp_path):
    _, figures = figures_of(tmp_path / "run", f"method={name}", "trainer.steps=60")
    mean, interval = accuracy(figures)
    assert mean - interval > 0.4  # chance is 0.2


@pytest.mark.parametrize("name", ["maml", "fomaml", "anil"])
def test_adaptation_beats_none_by_more_than_both_intervals(name, tmp_path):
    session, figures = figures_of(tmp_path / "run", f"method={name}", "trainer.steps=60")
    session.method.test_steps = 0
    with torch.no_grad():
        without = accuracy(session.evaluator.test(session.net)[0])
    adapted = accuracy(figures)
    assert adapted[0] - adapted[1] > without[0] + without[1] + 0.1


def test_a_frozen_backbone_is_run_once_for_each_image_of_the_test(tmp_path, monkeypatch):
    """The figures are those of an evaluator that knows of nothing frozen."""
    words = ("method=maml", "transfer.freeze=[backbone]", "init=scratch", "trainer.steps=2")
    session, figures = figures_of(tmp_path / "run", *words)
    images = []
    session.net.backbone.register_forward_pre_hook(lambda _, given: images.append(len(given[0])))
    with torch.no_grad():
        again = session.evaluator.test(session.net)[0]
    assert sum(images) <= 2 * (len(session.data.role("target_test")) + 1000)  # of both sets
    images.clear()
    monkeypatch.setattr(type(session.net), "path", lambda net, part="": ["other"])
    with torch.no_grad():
        one_by_one = session.evaluator.test(session.net)[0]
    assert len(images) > 60 * 4  # of each episode: three inner steps, then the queries
    assert accuracy(figures) == accuracy(again) == pytest.approx(accuracy(one_by_one), abs=2e-3)


class Nearest(FewShot):
    """Adapts nothing: the nearest class mean, by `predict` alone."""

    def __init__(self, needs_images):
        self.frozen, self.needs_images = ("backbone",), needs_images
        self.given = []

    def predict(self, net, x, query):
        self.given.append(x.shape[1:])
        features, support = (net(v, head=None).features for v in (x, query.support.x))
        return Output(-torch.cdist(features, class_means(support[None], query.support.y)[0]))


@pytest.mark.parametrize("needs_images", [False, True])
def test_a_method_says_what_it_holds_still(needs_images, tmp_path):
    session = small.session(tmp_path / "run", *SHORT, "method=maml")
    (phase,) = session.phases
    session.method.build(phase, session.net, session.data)
    net, evaluator = session.net.eval(), session.evaluator
    evaluator.method = method = Nearest(needs_images)
    method.frozen = net.path("backbone")
    with torch.no_grad():
        shape = session.data.tests[0]
        found = evaluator.accuracies(net, "target_test", shape, 2)
        method.frozen = ()
        one_by_one = evaluator.accuracies(net, "target_test", shape, 2)
    image = net.input_shape
    assert [given == image for given in method.given] == [needs_images] * 2 + [True] * 2
    assert torch.allclose(found, one_by_one, atol=2e-2)


def test_the_mean_of_simple_shot_is_that_of_the_base_classes(tmp_path):
    session, _ = figures_of(tmp_path / "run", "method=simple_shot", "trainer.steps=2")
    base = session.data.role("source_train")
    net = session.net.eval()
    with torch.no_grad():
        x = session.data.preprocess(base.read(torch.arange(len(base))))
        mean = net(x, head=None).features.mean(0)
    assert torch.allclose(net["centre"].mean, mean, atol=1e-4)
