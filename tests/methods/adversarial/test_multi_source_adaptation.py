"""Several sources and a target: formulas, weights of the sources, batch statistics by domain."""

import copy
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from helpers import small
from helpers.updates import LAMBDA, MIDDLE, assert_gradients, gap, gradients, shifted, train
from tlrun.errors import ConfigError
from tlrun.losses.disparity import moment_distance
from tlrun.methods.adversarial.m3sda import M3SDA
from tlrun.methods.adversarial.multi_source_dann import MultiSourceDANN
from tlrun.methods.base import Phase
from tlrun.methods.query import Query
from tlrun.models.batch_norm import BatchNorm, convert

SOURCES = ("a", "b", "c")
DOMAINS = (*SOURCES, "target")
DATA = SimpleNamespace(num_classes=small.CLASSES, sources=SOURCES)
BOTH = (MultiSourceDANN, M3SDA)


def ready(method, mode="per_domain", dropout=0.0, **head):
    method.batch_norm = mode
    net = small.net({"hidden": [8], **head}, dropout=dropout)
    (phase,) = method.phases(DATA)
    method.build(phase, net, DATA)
    return convert(net, mode).train()


def batch(size=8):
    return shifted(size, DOMAINS)


def by_domain(net, drawn, mode):
    """Features and logits of each domain by the definition of the mode."""
    images = [b.x for b in drawn.values()]
    if mode == "separate_forward":
        features = [net.features(x) for x in images]
    elif mode == "joint":
        features = net.features(torch.cat(images)).split(len(images[0]))
    else:
        mixture = net.features(torch.cat(images[:-1])).split(len(images[0]))
        features = [*mixture, net.features(images[-1])]
    return {name: (f, net["classifier"](f)) for name, f in zip(drawn, features, strict=True)}


# ---- what both share ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BOTH)
def test_a_step_draws_from_every_source_and_the_target(kind):
    (phase,) = kind().phases(DATA)
    assert phase.streams == DOMAINS


@pytest.mark.parametrize("mode", ["joint", "separate_forward", "per_domain"])
def test_features_are_those_of_the_mode(mode):
    method, drawn = M3SDA(), batch()
    net = ready(method, mode)
    expected = by_domain(copy.deepcopy(net), drawn, mode)
    out = method.forward(net, drawn)
    assert list(out) == list(DOMAINS)
    for name, (features, logits) in expected.items():
        assert torch.allclose(out[name].features, features, atol=1e-5)
        assert torch.allclose(out[name].logits, logits, atol=1e-5)


@pytest.mark.parametrize("kind", BOTH)
def test_the_sources_share_one_set_of_statistics_and_the_target_has_its_own(kind):
    """The mean of the first layer's input, from which its batch norm's running mean follows."""
    method, drawn = kind(), batch()
    net = ready(method, batch_norm=True)
    reference = copy.deepcopy(net)
    next(method.step(net, drawn, Phase(), MIDDLE))
    state = net.state_dict()
    counts = {key: int(v) for key, v in state.items() if key.endswith("num_batches_tracked")}
    assert set(counts.values()) == {1}  # once for all sources together, once for the target
    assert any("classifier" in key for key in counts)
    name, norm = next((n, m) for n, m in reference.named_modules() if isinstance(m, BatchNorm))
    seen_by_norm = []
    norm.register_forward_pre_hook(lambda _module, inputs: seen_by_norm.append(inputs[0]))
    reference.features(torch.cat([drawn[source].x for source in SOURCES]))
    reference.features(drawn["target"].x)
    for key, x in zip(("running_mean", "target_running_mean"), seen_by_norm, strict=True):
        ours = state[f"{name}.{key}"]
        assert torch.allclose(ours, 0.1 * x.mean((0, 2, 3)), atol=1e-5), key


@pytest.mark.parametrize("kind", BOTH)
def test_evaluation_reads_the_targets_statistics_for_the_target(kind):
    method, drawn = kind(), batch()
    net = train(method, ready(method), drawn, steps=3).eval()
    x = drawn["target"].x
    found = [method.predict(net, x, Query(domain=d)).scores for d in ("source", "target")]
    assert not torch.allclose(*found)


def features_of(method, drawn, steps):
    """Of each domain, after a short training with the statistics of the mixture."""
    net = train(method, ready(method, "joint"), drawn, steps=steps, lr=3e-3)
    with torch.no_grad():
        return {name: out.features for name, out in method.forward(net, drawn).items()}


# ---- M3SDA --------------------------------------------------------------------------------------


def test_the_losses_of_m3sda_equal_numpy():
    method, drawn = M3SDA(trade_off=0.3, moments=2), batch()
    net = ready(method)
    found = by_domain(copy.deepcopy(net), drawn, "per_domain")
    features = {name: f.detach().double().numpy() for name, (f, _) in found.items()}
    distance = 0.0
    for k in (1, 2):
        moment = {n: (f if k == 1 else (f - f.mean(0)) ** 2).mean(0) for n, f in features.items()}
        distance += np.mean([np.linalg.norm(moment[n] - moment["target"]) for n in SOURCES])
        pairs = combinations(SOURCES, 2)
        distance += np.mean([np.linalg.norm(moment[a] - moment[b]) for a, b in pairs])
    risk = np.mean([float(cross_entropy(found[n][1].detach(), drawn[n].y)) for n in SOURCES])
    (update,) = method.step(net, drawn, Phase(), MIDDLE)
    losses = {name: float(loss.detach()) for name, loss in update.losses.items()}
    assert losses == pytest.approx({"classification": risk, "moments": 0.3 * distance}, rel=1e-4)
    assert set(update.outputs) == set(DOMAINS)


@pytest.mark.parametrize("mode", ["joint", "separate_forward", "per_domain"])
def test_m3sda_compares_the_layer_that_it_is_told(mode):
    drawn = batch()
    for layer, width in (("classifier.fc1", 8), ("logits", small.CLASSES)):
        net = ready(M3SDA(layer=layer, trade_off=1.0), mode)
        found = by_domain(copy.deepcopy(net), drawn, mode)
        hidden = {n: net["classifier"].fc1(f) for n, (f, _) in found.items()}
        shown = hidden if layer == "classifier.fc1" else {n: z for n, (_, z) in found.items()}
        assert shown["target"].shape[1] == width
        expected = moment_distance([shown[n] for n in SOURCES], shown["target"])
        method = M3SDA(layer=layer, trade_off=1.0)
        method.batch_norm = mode
        (update,) = method.step(net, drawn, Phase(), MIDDLE)
        ours = float(update.losses["moments"].detach())
        assert ours == pytest.approx(float(expected.detach()), rel=1e-4)


def test_the_ways_to_measure_reach_the_loss():
    drawn = batch()
    for words in ({"standardised": True}, {"unbiased": True}, {"centred": False, "moments": 3}):
        method = M3SDA(trade_off=1.0, **words)
        net = ready(method)
        found = by_domain(copy.deepcopy(net), drawn, "per_domain")
        features = {name: f for name, (f, _) in found.items()}
        order = {"order": words.get("moments", 5)} | {
            k: v for k, v in words.items() if k != "moments"
        }
        expected = moment_distance([features[n] for n in SOURCES], features["target"], **order)
        (update,) = method.step(net, drawn, Phase(), MIDDLE)
        ours = float(update.losses["moments"].detach())
        assert ours == pytest.approx(float(expected.detach()), rel=1e-4)


def test_one_image_of_each_domain_is_a_clear_error():
    method = M3SDA(unbiased=True)
    with pytest.raises(ConfigError, match="batch_size"):
        next(method.step(ready(method), batch(1), Phase(), MIDDLE))


def test_a_layer_that_is_not_there_is_a_clear_error():
    with pytest.raises(ConfigError, match="fc2"):
        ready(M3SDA(layer="classifier.fc2"))


def test_m3sda_brings_moments_and_domains_together():
    """A larger factor would shrink the features instead, and the distance with them."""
    apart, moments = [], []
    for trade_off in (0.0, 0.01):
        found = features_of(M3SDA(trade_off=trade_off), batch(16), 60)
        apart.append(np.mean([gap(found[a], found[b]) for a, b in combinations(DOMAINS, 2)]))
        sources = [found[name] for name in SOURCES]
        moments.append(float(moment_distance(sources, found["target"])))
    assert apart[1] < 0.5 * apart[0]
    assert moments[1] < 0.1 * moments[0]


# ---- multi-source DANN --------------------------------------------------------------------------


@pytest.mark.parametrize("combine", ["soft", "mean", "hard"])
def test_gradients_equal_those_of_the_saddle_point_problem(combine):
    """f: Σ w_i (R_i − λ d_i); h: Σ w_i R_i; each domain head: its own d_i in full."""
    method = MultiSourceDANN(combine, sharpness=3.0, trade_off=0.5, domain_dropout=0.0)
    drawn, net = batch(), ready(method)
    reference = copy.deepcopy(net)
    found, strength = by_domain(reference, drawn, "per_domain"), 0.5 * LAMBDA
    risks, apart = [], []
    for name in SOURCES:
        risks.append(cross_entropy(found[name][1], drawn[name].y))
        told = reference[f"domain_head_{name}"](torch.cat([found[name][0], found["target"][0]]))
        domains = torch.cat([torch.ones(8), torch.zeros(8)])
        apart.append(binary_cross_entropy_with_logits(told, domains))
    bounds = torch.stack(risks) - strength * torch.stack(apart)
    bound = {
        "soft": torch.logsumexp(3.0 * bounds, 0) / 3.0,
        "mean": bounds.mean(),
        "hard": bounds.max(),
    }[combine]
    (update,) = method.step(net, drawn, Phase(), MIDDLE)
    sum(update.losses.values()).backward()
    expected = {part: gradients(bound, reference[part]) for part in ("backbone", "classifier")}
    for name, loss in zip(SOURCES, apart, strict=True):
        expected[f"domain_head_{name}"] = gradients(loss, reference[f"domain_head_{name}"])
    assert_gradients(net, expected)


def test_multi_source_dann_brings_the_target_to_the_sources():
    apart = []
    for trade_off in (0.0, 1.0):
        method = MultiSourceDANN(trade_off=trade_off, gamma=100.0, domain_dropout=0.0)
        found = features_of(method, batch(16), 120)
        apart.append(np.mean([gap(found[name], found["target"]) for name in SOURCES]))
    assert apart[1] < 0.6 * apart[0]


def test_the_weights_of_the_sources():
    bounds = torch.tensor([1.0, 3.0, 2.0])
    soft = np.exp(2.0 * bounds.numpy())
    ours = MultiSourceDANN("soft", sharpness=2.0).weights(bounds)
    assert ours.numpy() == pytest.approx(soft / soft.sum(), rel=1e-5)
    assert MultiSourceDANN("hard").weights(bounds).tolist() == [0, 1, 0]
    assert MultiSourceDANN("mean").weights(bounds).tolist() == pytest.approx([1 / 3] * 3)


def test_a_frozen_backbone_needs_no_gradient_of_its_own():
    method = MultiSourceDANN()
    net = ready(method)
    net.backbone.requires_grad_(False)
    (update,) = method.step(net, batch(), Phase(), MIDDLE)
    sum(update.losses.values()).backward()
    assert all(p.grad is not None for p in net["domain_head_a"].parameters())


# ---- a run, and errors --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["multi_source_dann", "m3sda"])
def test_a_run_reports_every_source(name, tmp_path):
    words = (f"method={name}", "data=digits_styles_digitsm", "trainer.steps=2")
    session = small.session(tmp_path / "run", *words)
    session.trainer().fit()
    assert session.method.batch_norm == "per_domain"
    figures, _ = session.evaluator.test(session.net.eval())
    wanted = {f"{source}_test/accuracy" for source in session.data.sources}
    assert wanted | {"source_test/accuracy", "target_test/accuracy"} <= set(figures)


@pytest.mark.parametrize("name", ["multi_source_dann", "m3sda"])
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("data=digits_digitsm",), "needs at least 2 sources"),
        (("data=digits_styles_digitsm", "target_images=none"), "target_images=none withholds"),
    ],
)
def test_data_that_do_not_fit_are_refused(name, words, sentence, tmp_path):
    with pytest.raises(ConfigError, match=sentence):
        small.session(tmp_path / "run", f"method={name}", *words)


@pytest.mark.parametrize(
    ("kind", "arguments", "sentence"),
    [
        (MultiSourceDANN, {"combine": "sotf"}, "did you mean 'soft'"),
        (MultiSourceDANN, {"sharpness": -1.0}, "sharpness=-1"),
        (MultiSourceDANN, {"trade_off": -1.0}, "trade_off=-1"),
        (MultiSourceDANN, {"domain_dropout": 1.0}, "domain_dropout=1.0: expected"),
        (MultiSourceDANN, {"domain_hidden": 0}, "domain_hidden=0"),
        (M3SDA, {"trade_off": -1.0}, "trade_off=-1"),
        (M3SDA, {"moments": 0}, "moments=0"),
    ],
)
def test_a_bad_argument_is_a_clear_error(kind, arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        small.configured(kind, **arguments)
