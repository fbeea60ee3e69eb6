"""TENT: scale and shift of batch norm move, nothing else; the entropy falls."""

import numpy as np
import pytest
import torch

from helpers import small
from helpers.sessions import before_adapting, moved
from tlrun.data.pipeline.streams import Batch
from tlrun.errors import ConfigError
from tlrun.experiment.checks import check_phases
from tlrun.methods.base import Phase, Progress
from tlrun.methods.source_free.tent import Tent

OPTIONS = ("method=tent", "method.adapt_steps=4", "trainer.steps=3")
HEAD = ("backbone.head.hidden=[8]", "backbone.head.batch_norm=true")


def moved_by(folder, *options):
    """Names of what differs after the target phase."""
    session = small.session(folder, *OPTIONS, *HEAD, *options)
    before = before_adapting(session)
    session.trainer().fit()
    return moved(session, before)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_only_scale_and_shift_and_the_targets_statistics_move(decay, tmp_path):
    assert moved_by(tmp_path / "run", f"optimizer.weight_decay={decay}") == {
        f"parts.{norm}.{name}"
        for norm in ("backbone.conv1.norm", "backbone.conv2.norm", "classifier.fc1.norm")
        for name in (
            *("weight", "bias", "target_running_mean", "target_running_var"),
            "target_num_batches_tracked",
        )
    }


def test_frozen_stages_keep_theirs(tmp_path):
    found = moved_by(tmp_path / "run", "transfer.freeze=[classifier,backbone.conv1]")
    assert found
    assert all("conv2.norm" in key for key in found)


def last_phase():
    """(method, net) as the last phase finds them."""
    method = Tent()
    return method, small.built(method, small.net(dropout=0.0))


def test_the_loss_is_the_entropy():
    method, net = last_phase()
    x = small.batch()["target"].x
    (update,) = method.step(
        net, {"target": Batch(x, None, torch.arange(8))}, Phase(), Progress(0, 9)
    )
    p = net(x, "target").logits.detach().double().softmax(1).numpy()
    expected = -(p * np.log(p)).sum(1).mean()
    assert update.losses.keys() == {"entropy"}
    assert float(update.losses["entropy"].detach()) == pytest.approx(expected, rel=1e-5)
    assert update.outputs.keys() == {"target"}


def test_the_entropy_falls():
    method, net = last_phase()
    batch = {"target": small.batch()["target"]}
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=0.1)
    values = []
    for _ in range(20):
        (update,) = method.step(net, batch, Phase(), Progress(0, 20))
        optimizer.zero_grad()
        update.losses["entropy"].backward()
        optimizer.step()
        values.append(float(update.losses["entropy"].detach()))
    assert values[-1] < 0.9 * values[0]


def test_the_source_phase_trains_everything_again():
    """`build` decides for each phase: a run that evaluates builds all of them in turn."""
    method, net = last_phase()
    assert sum(p.requires_grad for p in net.parameters()) == 4
    method.build(method.phases(None)[0], net, type("Data", (), {"num_classes": small.CLASSES}))
    assert all(p.requires_grad for p in net.parameters())


def test_what_makes_no_sense_is_refused(tmp_path):
    session = small.session(tmp_path / "run", *OPTIONS, "backbone.batch_norm=false")
    with pytest.raises(ConfigError, match="method=tent adapts batch norm"):
        check_phases(session)
    with pytest.raises(ConfigError, match=r"method\.adapt_steps=0"):
        small.configured(Tent, adapt_steps=0)
    with pytest.raises(ConfigError, match=r"method\.adapt_lr=-1"):
        small.configured(Tent, adapt_lr=-1)
