"""`batch_norm=frozen`: the weights train, and the statistics that a net came with stay."""

import logging

import pytest
import torch
import yaml
from torch import nn

from helpers import sessions, small
from tlrun.errors import ConfigError
from tlrun.methods.build import build_method
from tlrun.models.batch_norm import BatchNorm, convert, norms_with_statistics, set_held_eval
from tlrun.models.ema import EmaTeacher

FROZEN = "batch_norm=frozen"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on the source to start from."""
    folder = tmp_path_factory.mktemp("trained")
    session = small.session(folder, "method=source_only", "trainer.steps=4")
    session.trainer().fit()
    session.run_dir.config.write_text(yaml.safe_dump(session.cfg))
    session.run_dir.write_json(session.run_dir.label_space, session.data.label_space.to_json())
    return folder


def statistics(net, keys=("running_mean", "running_var", "num_batches_tracked")):
    return {k: v.clone() for k, v in net.state_dict().items() if k.endswith(keys)}


def begun(session):
    """The state of the net as its last phase finds it, taken while `fit` runs."""
    return sessions.before_adapting(session)


def test_statistics_stay_to_the_bit_and_scale_and_shift_train(tmp_path, trained):
    session = small.session(tmp_path, "method=dann", FROZEN, f"init={trained}")
    before = begun(session)
    session.trainer().fit()
    after = session.net.state_dict()
    held = [name for name in session.net.held if "backbone" in name]
    assert held
    for name in held:
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(before[f"{name}.{key}"], after[f"{name}.{key}"])
        for key in ("weight", "bias"):
            assert not torch.equal(before[f"{name}.{key}"], after[f"{name}.{key}"])


def test_training_normalises_by_the_statistics_it_came_with(tmp_path, trained):
    session = small.session(
        tmp_path, "method=finetune", "target_labels=2", FROZEN, f"init={trained}",
        "backbone.dropout=0",
    )  # fmt: skip
    session.trainer().fit()
    session.net.train()
    set_held_eval(session.net)
    x = torch.randn(4, *session.data.input_shape)
    whole = session.net(x, head=None).features
    assert torch.allclose(whole[:1], session.net(x[:1], head=None).features, atol=1e-5)


def test_a_new_heads_batch_norm_trains(tmp_path, trained):
    session = small.session(
        tmp_path, "method=finetune", "target_labels=2", FROZEN, f"init={trained}",
        "backbone.head.hidden=[8]", "backbone.head.batch_norm=true", "transfer.reinit=[classifier]",
    )  # fmt: skip
    session.trainer().fit()
    assert session.net.held
    assert not [name for name in session.net.held if "classifier" in name]
    moved = statistics(session.net["classifier"], ("running_mean",))
    assert moved
    assert all(bool((mean != 0).any()) for mean in moved.values())


def test_a_source_phase_learns_what_the_target_phase_keeps(tmp_path):
    session = small.session(tmp_path, *sessions.FEW, FROZEN)
    before = begun(session)
    session.trainer().fit()
    now = statistics(session.net)
    assert now
    assert all(torch.equal(before[key], value) for key, value in now.items())
    assert all(bool((v != 0).any()) for k, v in now.items() if k.endswith("running_mean"))


@pytest.mark.parametrize("at", [2, sessions.SOURCE_STEPS + 3])
def test_a_resumed_run_holds_the_same(tmp_path, at):
    sessions.resumed_equals_straight(tmp_path, FROZEN, at=at)


def test_fresh_statistics_are_none():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    assert norms_with_statistics(net) == []
    net[1].running_var.mul_(2)  # published weights may count no batches
    assert norms_with_statistics(net) == ["1"]
    assert norms_with_statistics(convert(net, "joint", synchronize=True)) == ["1"]
    assert isinstance(net[1], BatchNorm)


def test_a_teacher_keeps_them_too():
    net = small.net()
    net.add("classifier", net.new_head(3))
    net(torch.randn(8, 3, 16, 16) + 1)
    teacher = EmaTeacher(net)
    before = statistics(teacher)
    net.add("teacher", teacher)
    net.hold_statistics()
    teacher.teach(torch.randn(8, 3, 16, 16))
    after = statistics(teacher)
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_the_method_forwards_as_joint():
    spec = {"_target_": "tlrun.methods.adversarial.dann.DANN"}
    method = build_method({"method": spec, "batch_norm": "frozen", "init": "auto"})
    assert (method.batch_norm, method.frozen_statistics) == ("joint", True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("method=dann", "init=scratch"), "init=scratch comes without batch statistics"),
        (("method=adabn",), "adabn replaces batch statistics"),
        ((*sessions.FEW, "terms=[stoch_norm]"), "leave one of them out"),
        (("method=dann",), "no batch norm of this net has statistics yet"),
    ],
)
def test_what_it_cannot_mean_is_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        small.session(tmp_path, FROZEN, *options).trainer().fit()


def test_a_net_without_batch_norm_is_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        small.session(tmp_path, "method=dann", FROZEN, "backbone.batch_norm=false").trainer().fit()
    assert "changes nothing: this net has no batch norm" in caplog.text
