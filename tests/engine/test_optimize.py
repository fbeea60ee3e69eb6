"""Learning rates and optimizer groups."""

import math

import pytest
import small
import torch

from tlrun.engine.optimize import learning_rate_factor, make_optimizer, set_learning_rate
from tlrun.errors import ConfigError
from tlrun.methods.dann import DANN

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


def test_a_warm_up_longer_than_the_phase_still_ends():
    assert learning_rate_factor({"name": "cosine", "warmup_steps": 100}, 3, 4) > 0


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
