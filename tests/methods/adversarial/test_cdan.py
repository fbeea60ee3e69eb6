"""CDAN: the formula by plain autograd, the projection, and what it is for."""

import copy

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from helpers import small
from helpers.updates import LAMBDA, MIDDLE, assert_gradients, gap, gradients, shifted, train
from tlrun.errors import ConfigError
from tlrun.methods.adversarial.cdan import CDAN
from tlrun.methods.base import Phase


def ready(net_=None, mode="separate_forward", **arguments):
    method = CDAN(domain_dropout=0.0, **arguments)
    method.batch_norm = mode
    return method, small.built(method, net_ or small.net(dropout=0.0))


@pytest.mark.parametrize("entropy", [True, False])
@pytest.mark.parametrize("randomised", [True, False])
def test_gradients_equal_those_of_the_saddle_point_problem(entropy, randomised):
    """backbone: CE − λ·d; label head: CE alone, since g is detached; domain head: d."""
    method, net = ready(entropy=entropy, randomised=randomised, randomised_dim=32)
    batch, reference = small.batch(), copy.deepcopy(net)
    joint, weights, logits = [], [], {}
    for name in ("source", "target"):
        features = reference.features(batch[name].x)
        logits[name] = reference["classifier"](features)
        g = logits[name].detach().softmax(1)
        if randomised:
            maps = reference["multilinear"]
            joint.append((features @ maps.of_features) * (g @ maps.of_classes) / 32**0.5)
        else:
            joint.append(torch.einsum("bd,bk->bdk", features, g).flatten(1))
        certain = 1 + torch.exp((g * g.log()).sum(1))
        weights.append(0.5 * certain / certain.sum() if entropy else torch.full((8,), 1 / 16))
    label_loss = cross_entropy(logits["source"], batch["source"].y)
    domains = torch.cat([torch.ones(8), torch.zeros(8)])
    told = reference["domain_head"](torch.cat(joint))
    domain_loss = binary_cross_entropy_with_logits(
        told, domains, weight=torch.cat(weights), reduction="sum"
    )

    (update,) = method.step(net, batch, Phase(), MIDDLE)
    assert float(update.losses["domain"].detach()) == pytest.approx(float(domain_loss.detach()))
    sum(update.losses.values()).backward()
    objectives = {
        "backbone": label_loss - LAMBDA * domain_loss,
        "classifier": label_loss,
        "domain_head": domain_loss,
    }
    assert_gradients(net, {part: gradients(o, reference[part]) for part, o in objectives.items()})


def test_a_large_product_is_projected_and_a_small_one_is_not():
    _, net = ready()
    assert "multilinear" not in net.parts
    first = net["domain_head"].get_submodule("fc1")[0]
    assert first.in_features == net.feature_dim * small.CLASSES
    wide = small.net()
    wide.backbone.feature_dim = 1025  # times 4 classes
    _, net = ready(wide)
    assert net["multilinear"].of_features.shape == (1025, 1024)
    assert net["domain_head"].get_submodule("fc1")[0].in_features == 1024


def test_the_projection_is_in_the_state_and_in_no_optimizer():
    _, net = ready(randomised=True, randomised_dim=8)
    _, other = ready(randomised=True, randomised_dim=8)
    torch.nn.init.zeros_(other["multilinear"].of_classes)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other["multilinear"].of_classes, net["multilinear"].of_classes)
    assert not list(net.parameters_of(["multilinear"]))


@pytest.mark.parametrize("mode", ["joint", "separate_forward", "per_domain"])
def test_every_mode_of_batch_norm_gives_a_finite_loss_and_the_logits_of_both(mode):
    method, net = ready(mode=mode, attach="classifier.fc1")
    (update,) = method.step(net, small.batch(), Phase(), MIDDLE)
    assert all(torch.isfinite(loss) for loss in update.losses.values())
    assert update.outputs["target"].logits.shape == (8, small.CLASSES)


def test_it_brings_the_domains_together():
    batch = shifted()

    def apart(trade_off):
        method, net = ready(mode="joint", trade_off=trade_off, lambda_schedule="constant")
        train(method, net, batch, steps=80, lr=3e-3)
        with torch.no_grad():
            joint = net.features(torch.cat([batch["source"].x, batch["target"].x]))
        return gap(*joint.split(16))

    assert apart(1.0) < 0.5 * apart(0.0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"randomised": "sometimes"}, "one of auto, true, false"),
        ({"randomised_dim": 0}, "randomised_dim=0: expected a whole number from 1"),
        ({"trade_off": -1.0}, "trade_off=-1"),
        ({"domain_dropout": 1.0}, "domain_dropout=1.0: expected"),
        ({"domain_layers": -1}, "domain_layers=-1"),
        ({"lambda_schedule": "sigmod"}, "did you mean 'sigmoid'"),
    ],
)
def test_a_bad_argument_is_a_clear_error(arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        small.configured(CDAN, **arguments)
