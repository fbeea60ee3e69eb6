"""DAN, JAN and Deep CORAL: the objective, the schedule, the effect."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers import small
from tlrun.errors import ConfigError
from tlrun.losses.coral import coral_loss
from tlrun.losses.mmd import joint_mmd_loss, mmd_loss
from tlrun.methods.base import Phase, Progress
from tlrun.methods.discrepancy.dan import DAN
from tlrun.methods.discrepancy.deep_coral import DeepCORAL
from tlrun.methods.discrepancy.jan import JAN

METHODS = {"dan": DAN, "jan": JAN, "deep_coral": DeepCORAL}
HALF = Progress(5, 10)
LAMBDA = float(2 / (1 + torch.exp(torch.tensor(-5.0))) - 1)


def update_of(method, net, batch, progress=HALF):
    (update,) = method.step(net, batch, Phase(), progress)
    return update


def outputs(net, batch, mode, taps=()):
    """Forward passes of the two domains, written out."""
    if mode == "joint":
        joined = net(torch.cat([batch["source"].x, batch["target"].x]), taps=taps)
        halves = [slice(0, 8), slice(8, 16)]
        return [
            (joined.features[h], joined.logits[h], {k: v[h] for k, v in joined.taps.items()})
            for h in halves
        ]
    found = []
    for domain in ("source", "target"):
        out = net(batch[domain].x, domain, taps=taps)
        found.append((out.features, out.logits, out.taps))
    return found


@pytest.mark.parametrize("mode", ["joint", "separate_forward", "per_domain"])
def test_the_objective_is_that_of_the_docstring(mode):
    batch, stage = small.batch(), "classifier.fc1"
    cases = {
        DAN(): lambda s, t: mmd_loss(s[0], t[0]) + mmd_loss(s[1], t[1]),
        DAN(layers=[stage, "backbone.conv1"], kernels=1, bandwidth="median", estimator="linear"): (
            lambda s, t: sum(
                mmd_loss(
                    s[2][k].flatten(1),
                    t[2][k].flatten(1),
                    kernels=1,
                    bandwidth="median",
                    estimator="linear",
                )
                for k in (stage, "backbone.conv1")
            )
        ),
        JAN(estimator="biased"): lambda s, t: joint_mmd_loss(
            [s[0], s[1].softmax(1)],
            [t[0], t[1].softmax(1)],
            bandwidths=("mean", 1.68),
            estimator="biased",
        ),
        DeepCORAL(): lambda s, t: coral_loss(s[1], t[1]),
        DeepCORAL(layer=stage): lambda s, t: coral_loss(s[2][stage], t[2][stage]),
    }
    for method, distance in cases.items():
        method.batch_norm, method.trade_off = mode, 0.7
        net = small.built(method, small.net(dropout=0.0))
        reference = copy.deepcopy(net)
        update = update_of(method, net, batch)
        source, target = outputs(reference, batch, mode, (stage, "backbone.conv1"))
        apart = distance(source, target)
        losses = {k: v.item() for k, v in update.losses.items()}
        label = float(cross_entropy(source[1], batch["source"].y))
        assert losses.pop("classification") == pytest.approx(label, rel=1e-5)
        assert losses == {method.distance_name: pytest.approx(0.7 * LAMBDA * float(apart))}
        assert update.main
        assert update.parts is None
        assert set(update.outputs) == {"source", "target"}
        assert float(update.metrics[f"{method.distance_name}_distance"]) == pytest.approx(
            float(apart)
        )


@pytest.mark.parametrize("name", METHODS)
def test_lambda_rises_from_0_or_is_constant(name):
    net, batch = small.built(METHODS[name](), small.net()), small.batch()
    for schedule, first in (("sigmoid", 0.0), ("linear", 0.0), ("constant", 3.0)):
        method = METHODS[name](trade_off=3.0, lambda_schedule=schedule)
        assert update_of(method, net, batch, Progress(0, 10)).metrics["lambda"] == first
    assert update_of(METHODS[name](), net, batch).metrics["lambda"] == pytest.approx(LAMBDA)


@pytest.mark.parametrize("name", METHODS)
def test_training_lowers_its_own_distance(name):
    """On one pair of batches: the domains come together, and the source is still learned."""

    def trained(trade_off):
        method = METHODS[name](trade_off=trade_off, lambda_schedule="constant")
        method.batch_norm = "joint"
        net = small.built(method, small.net({"hidden": [8]}, dropout=0.0))
        batch = small.batch(size=16)
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            update = update_of(method, net, batch)
            sum(update.losses.values()).backward()
            optimizer.step()
        key = f"{method.distance_name}_distance"
        return float(update.metrics[key]), float(update.losses["classification"])

    without, _ = trained(0.0)
    distance, classification = trained(3.0)
    assert distance < 0.5 * without
    assert classification < 1.2  # log 4 = 1.39 at first


@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_the_body_from_both_domains(name):
    method, batch = METHODS[name](), small.batch()
    net = small.built(method, small.net(dropout=0.0))
    for drawn in batch.values():
        drawn.x.requires_grad_()
    loss = update_of(method, net, batch).losses[method.distance_name]
    for gradient in torch.autograd.grad(loss, [drawn.x for drawn in batch.values()]):
        assert float(gradient.abs().sum()) > 0


@pytest.mark.parametrize(
    ("method", "key", "value", "hint"),
    [
        *((m, "trade_off", -1.0, "from 0") for m in METHODS.values()),
        *((m, "lambda_schedule", "sigmod", "did you mean 'sigmoid'") for m in METHODS.values()),
        (DAN, "layers", [], "at least one layer"),
        (DAN, "layers", "features", "expected a list"),
        (DAN, "kernels", -1, "from 0"),
        (DAN, "bandwidth", "meen", "did you mean 'mean'"),
        (DAN, "bandwidth", -1.0, "above 0"),
        (DAN, "estimator", "unbised", "did you mean 'unbiased'"),
        (JAN, "bandwidth", "meen", "did you mean 'mean'"),
        (JAN, "softmax_bandwidth", 0.0, "above 0"),
        (JAN, "kernels", -1, "from 0"),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_their_key(method, key, value, hint):
    with pytest.raises(ConfigError, match=rf"^method\.{key}\b.*{hint}"):
        small.configured(method, **{key: value})


@pytest.mark.parametrize("method", [DAN(layers=["backbone.conf1"]), DeepCORAL(layer="feature")])
def test_a_layer_that_is_not_there_is_a_clear_error(method):
    with pytest.raises(ConfigError, match=r"did you mean|Valid"):
        small.built(method, small.net())


@pytest.mark.parametrize("name", METHODS)
def test_one_image_of_a_domain_is_refused_by_the_keys_that_give_more(name):
    method, batch = METHODS[name](), small.batch(size=1)
    net = small.built(method, small.net(batch_norm=False))
    with pytest.raises(ConfigError, match=r"trainer\.batch_size.*trainer\.accumulate"):
        update_of(method, net, batch)
