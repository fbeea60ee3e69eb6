"""Learning rates and optimizer groups."""

import math

import pytest
import torch

from helpers import small
from tlrun.config.compose import compose
from tlrun.engine.optimizers import (
    learning_rate_factor,
    make_optimizer,
    merged,
    set_learning_rate,
)
from tlrun.errors import ConfigError
from tlrun.methods.adversarial.dann import DANN
from tlrun.models.net import Net
from tlrun.models.torchvision_backbones import torchvision_backbone

ADAM = {"name": "adam", "lr": 0.01, "betas": [0.9, 0.999], "head_lr_multiplier": 10}


def test_the_paper_schedule():
    schedule = {"name": "dann", "alpha": 10.0, "beta": 0.75}
    for step in (0, 25, 100):
        expected = (1 + 10 * step / 100) ** -0.75
        assert learning_rate_factor(schedule, step, 100) == pytest.approx(expected)


def test_cosine_warms_up_then_falls_to_zero():
    schedule = {"name": "cosine", "warmup_steps": 10}
    factors = [learning_rate_factor(schedule, step, 110) for step in range(110)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors[60] == pytest.approx(0.5)
    assert factors[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))


def test_step_and_constant():
    schedule = {"name": "step", "milestones": [0.5, 0.75], "gamma": 0.1}
    assert [round(learning_rate_factor(schedule, s, 4), 6) for s in range(4)] == [1, 1, 0.1, 0.01]
    assert learning_rate_factor({"name": "constant"}, 3, 4) == 1.0


def test_a_warm_up_takes_at_most_half_of_a_short_phase():
    schedule = {"name": "cosine", "warmup_steps": 100}
    factors = [learning_rate_factor(schedule, step, 60) for step in range(60)]
    assert factors[29] == factors[30] == 1.0
    assert factors[45] == pytest.approx(0.5)
    assert factors[-1] < 0.01
    assert learning_rate_factor(schedule, 0, 1) == 1.0
    assert all(learning_rate_factor(schedule, step, 4) > 0 for step in range(4))


def test_unknown_names():
    with pytest.raises(ConfigError, match="did you mean 'cosine'"):
        learning_rate_factor({"name": "cosin"}, 0, 1)
    with pytest.raises(ConfigError, match="did you mean 'adam'"):
        make_optimizer({**ADAM, "name": "adan"}, small.net(), None)


def test_groups_are_parts_and_the_head_has_its_own_rate():
    net = small.built(DANN(), small.net())
    optimizer = make_optimizer(ADAM, net, None)
    set_learning_rate(optimizer, 0.5)
    assert {g["name"]: g["lr"] for g in optimizer.param_groups} == {
        "backbone": 0.005,
        "classifier": 0.05,
        "domain_head": 0.05,
    }


def test_frozen_parameters_are_left_out():
    net = small.built(DANN(), small.net())
    net["backbone"].requires_grad_(False)
    assert {g["name"] for g in make_optimizer(ADAM, net, None).param_groups} == {
        "classifier",
        "domain_head",
    }
    net.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing is left to train"):
        make_optimizer(ADAM, net, None)


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_other_optimizers(name, kind):
    optimizer = make_optimizer({**ADAM, "name": name, "momentum": 0.9}, small.net(), ("backbone",))
    assert type(optimizer) is kind


def scales(decay, net, **keys):
    optimizer = make_optimizer({**ADAM, "layer_decay": decay, **keys}, net, None)
    return {g["name"]: round(g["lr"] / 0.01, 9) for g in optimizer.param_groups}


def test_layer_decay_gives_each_stage_of_the_backbone_a_group():
    net = small.built(DANN(), small.net())
    assert scales(0.5, net) == {
        "backbone.conv1": 0.25,
        "backbone.conv2": 0.5,
        "classifier": 10.0,
        "domain_head": 10.0,
    }
    held = {id(p) for g in make_optimizer({**ADAM, "layer_decay": 0.5}, net, None).param_groups
            for p in g["params"]}  # fmt: skip
    assert held == {id(p) for p in net.parameters()}


def test_a_decay_of_one_leaves_one_group_per_part():
    net = small.built(DANN(), small.net())
    assert scales(1.0, net) == {"backbone": 1.0, "classifier": 10.0, "domain_head": 10.0}


def test_frozen_stages_keep_their_place_in_the_decay():
    net = small.built(DANN(), small.net())
    net["backbone"].conv1.requires_grad_(False)
    assert scales(0.5, net)["backbone.conv2"] == 0.5
    assert "backbone.conv1" not in scales(0.5, net)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        # bn1 is no layer of its own: it has conv1's rate
        (
            "resnet18",
            32,
            {"conv1": 5, "bn1": 5, "layer1": 4, "layer2": 3, "layer3": 2, "layer4": 1},
        ),
        ("vit_b_32", 64, {"conv_proj": 13, "encoder.layers.encoder_layer_0": 12, "encoder.ln": 1}),
    ],
)
def test_layer_decay_of_torchvision_models(name, size, expected):
    """Each stage has a scale of its own, and nothing is left out: the class token neither."""
    net = Net(torchvision_backbone(name, (3, size, size)), (3, size, size))
    optimizer = make_optimizer({**ADAM, "layer_decay": 0.5}, net, None)
    rates = {g["name"]: g["lr"] / 0.01 for g in optimizer.param_groups}
    for stage, power in expected.items():
        assert rates[f"backbone.{stage}"] == pytest.approx(0.5**power)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(net.parameters()))


def test_the_schedule_scales_all_groups_and_the_log_says_the_rate_they_are_multiples_of():
    net = small.built(DANN(), small.net())
    optimizer = make_optimizer({**ADAM, "layer_decay": 0.5}, net, None)
    set_learning_rate(optimizer, 0.1)
    assert optimizer.defaults["current_lr"] == pytest.approx(0.001)
    rates = {g["name"]: g["lr"] for g in optimizer.param_groups}
    assert rates["backbone.conv1"] == pytest.approx(0.00025)


@pytest.mark.parametrize("value", [0, 1.5, -0.1])
def test_a_layer_decay_lies_above_0_and_at_most_at_1(value):
    with pytest.raises(ConfigError, match=r"optimizer\.layer_decay=.*above 0 to 1"):
        compose([f"optimizer.layer_decay={value}"])
    with pytest.raises(ConfigError, match=r"phases\.train\.optimizer\.layer_decay"):
        compose([f"phases.train.optimizer.layer_decay={value}"])


def test_a_phase_of_another_optimizer_keeps_the_layer_decay():
    assert merged({**ADAM, "layer_decay": 0.5}, {"name": "sgd", "lr": 0.1})["layer_decay"] == 0.5
