"""MDD: the gradients of its saddle-point problem, and what it does to the disparity."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers import small
from helpers.updates import (
    LAMBDA,
    MIDDLE,
    apply,
    assert_gradients,
    features_of_both,
    gradients,
    shifted,
    train,
)
from tlrun.errors import ConfigError
from tlrun.methods.adversarial.mdd import MDD
from tlrun.methods.base import Phase, Update


def ready(mode="per_domain", **arguments):
    method = MDD(**arguments)
    method.batch_norm = mode
    return method, small.built(method, small.net(dropout=0.0))


@pytest.mark.parametrize("mode", ["joint", "separate_forward", "per_domain"])
def test_gradients_equal_those_of_the_saddle_point_problem(mode):
    """backbone: CE − λ·L; main head: CE alone; auxiliary head: L."""
    method, net = ready(mode, margin=math.log(3), trade_off=0.5)
    batch, reference = small.batch(), copy.deepcopy(net)
    source, target = features_of_both(reference, batch, mode)
    main, auxiliary = reference["classifier"], reference["auxiliary"]
    label_loss = cross_entropy(main(source), batch["source"].y)
    chosen = main(target).argmax(1, keepdim=True)
    differ = -torch.log(1 - auxiliary(target).softmax(1).gather(1, chosen)).mean()
    disparity = 3 * cross_entropy(auxiliary(source), main(source).argmax(1)) + differ

    (update,) = method.step(net, batch, Phase(), MIDDLE)
    found = {name: float(loss.detach()) for name, loss in update.losses.items()}
    expected = {
        "classification": float(label_loss.detach()),
        "disparity": float(disparity.detach()),
    }
    assert found == pytest.approx(expected, rel=1e-5)
    assert float(update.metrics["lambda"]) == pytest.approx(0.5 * float(LAMBDA))
    sum(update.losses.values()).backward()
    objectives = {
        "backbone": label_loss - 0.5 * LAMBDA * disparity,
        "classifier": label_loss,
        "auxiliary": disparity,
    }
    assert_gradients(net, {part: gradients(o, reference[part]) for part, o in objectives.items()})


def test_the_auxiliary_head_lowers_the_disparity_and_the_features_raise_it():
    """A step on each alone, with the classification left out."""
    batch, changes = shifted(32), {}
    for part in ("auxiliary", "backbone"):
        method, net = ready("joint", trade_off=1.0)
        train(method, net, batch, steps=10, lr=3e-3)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
        (update,) = method.step(net, batch, Phase(), MIDDLE)
        before = update.losses["disparity"]
        apply(Update({"disparity": before}, parts=(part,)), net, optimizer)
        (update,) = method.step(net, batch, Phase(), MIDDLE)
        changes[part] = float((update.losses["disparity"] - before).detach())
    assert changes["auxiliary"] < 0
    assert changes["backbone"] > 0


def test_terms_see_both_domains():
    method, net = ready()
    (update,) = method.step(net, small.batch(), Phase(), MIDDLE)
    assert update.outputs["target"].logits is not None
    assert update.outputs["source"].y is not None


@pytest.mark.parametrize("arguments", [{"margin": -1.0}, {"trade_off": -1.0}, {"slope": -1.0}])
def test_a_bad_argument_is_a_clear_error(arguments):
    with pytest.raises(ConfigError, match="expected a number from 0"):
        small.configured(MDD, **arguments)
