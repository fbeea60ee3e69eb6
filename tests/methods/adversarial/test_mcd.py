"""MCD: which parts the steps A, B and C move, what they minimise, and what both do together."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers import small
from helpers.updates import MIDDLE, apply, features_of_both, moves, shifted, train
from tlrun.errors import ConfigError
from tlrun.losses.disparity import discrepancy
from tlrun.methods.adversarial.mcd import MCD
from tlrun.methods.base import Phase
from tlrun.methods.query import Query

HEADS = {"classifier", "classifier2"}


def ready(method=None, mode="per_domain", **head):
    method = method or MCD()
    method.batch_norm = mode
    return method, small.built(method, small.net({"hidden": [8], **head}, dropout=0.0))


@pytest.mark.parametrize("mode", ["joint", "separate_forward", "per_domain"])
def test_a_step_is_one_update_of_all_one_of_the_heads_and_n_of_the_backbone(mode):
    method, net = ready(MCD(n=3), mode)
    assert moves(method, net, small.batch()) == [HEADS | {"backbone"}, HEADS, *[{"backbone"}] * 3]


def test_the_two_heads_start_apart():
    _, net = ready()
    first, second = (net[head].get_submodule("out").weight for head in sorted(HEADS))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("mode", ["joint", "per_domain"])
def test_the_losses_equal_the_formulas(mode):
    """Nothing is stepped here, so that all updates see the same weights."""
    method, net = ready(MCD(n=2, trade_off=0.5), mode)
    batch, reference = small.batch(), copy.deepcopy(net)
    source, target = features_of_both(reference, batch, mode)
    y = batch["source"].y
    risk = [float(cross_entropy(reference[head](source), y).detach()) for head in sorted(HEADS)]
    p, q = (reference[head](target).softmax(1) for head in sorted(HEADS))
    apart = float((p - q).abs().mean().detach())

    a, b, *c = method.step(net, batch, Phase(), MIDDLE)
    found = [{k: float(v.detach()) for k, v in update.losses.items()} for update in (a, b, *c)]
    assert found[0] == pytest.approx(
        dict(zip(("classification", "classification2"), risk, strict=True))
    )
    assert found[1] == pytest.approx(
        {
            "heads_classification": risk[0],
            "heads_classification2": risk[1],
            "heads_discrepancy": -0.5 * apart,
        },
        rel=1e-5,
    )
    assert found[2:] == [pytest.approx({"discrepancy": 0.5 * apart}, rel=1e-5)] * 2
    assert [update.main for update in (a, b, *c)] == [True, False, False, False]
    mean = 0.5 * (reference["classifier"](target) + reference["classifier2"](target))
    assert torch.allclose(a.outputs["target"].logits, mean, atol=1e-5)


def test_the_heads_drive_apart_and_the_backbone_brings_together():
    method, net = ready(MCD(n=8), "joint")
    batch = shifted(32)
    train(method, net, batch, steps=10, lr=3e-3)

    def apart():
        logits = method.forward(net, batch)[1]["target"]
        return float(discrepancy(*logits).detach())

    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    figures = []
    for update in method.step(net, batch, Phase(), MIDDLE):
        before = apart()
        apply(update, net, optimizer)
        figures.append(apart() - before)
    assert figures[1] > 0
    assert all(change < 0 for change in figures[2:])


def test_evaluation_has_statistics_of_the_target_in_both_heads():
    method, net = ready(batch_norm=True)
    train(method, net, small.batch(), steps=2)
    counts = {k: int(v) for k, v in net.state_dict().items() if "target_num_batches" in k}
    assert {key.split(".")[1] for key in counts} == HEADS | {"backbone"}
    assert min(counts.values()) == 2 * (2 + method.n)


def test_the_prediction_is_the_mean_of_both_heads():
    method, net = ready()
    net.eval()
    x = small.batch()["target"].x
    out = method.predict(net, x, Query())
    expected = (net["classifier"](out.features) + net["classifier2"](out.features)) / 2
    assert torch.allclose(out.scores, expected)


@pytest.mark.parametrize("arguments", [{"n": 0}, {"trade_off": -0.1}])
def test_a_bad_argument_is_a_clear_error(arguments):
    with pytest.raises(ConfigError, match=r"expected a (whole )?number from"):
        small.configured(MCD, **arguments)
