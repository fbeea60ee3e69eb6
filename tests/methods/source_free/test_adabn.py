"""AdaBN: the statistics against numpy, and that nothing else moves."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

from helpers import small
from helpers.sessions import before_adapting, moved
from tlrun.data.pipeline.hashing import permutation
from tlrun.errors import ConfigError
from tlrun.experiment.checks import check_phases
from tlrun.methods.query import Query
from tlrun.methods.source_free.adabn import Moments

OPTIONS = ("method=adabn", "trainer.steps=3", "backbone.dropout=0")


def adapted(folder, *options):
    """(session, state of the net when the source phase is over)."""
    session = small.session(folder, *OPTIONS, *options)
    # channels last, torch sums in another order, too coarsely for the bounds below
    session.net.to(memory_format=torch.contiguous_format)
    before = before_adapting(session)
    session.trainer().fit()
    return session, before


def images_of(session):
    examples = session.data.role("target_train")
    return session.data.preprocess(examples.read(torch.arange(len(examples))))


def test_statistics_equal_numpy(tmp_path):
    """Two layers by hand: each normalises by its batch, its statistics are those of all values."""
    session, _ = adapted(tmp_path / "run")
    x = images_of(session)
    count = len(x)
    x = x[permutation(count, "adabn")]
    size = math.ceil(count / math.ceil(count / 256))
    first, second = session.net.backbone.conv1, session.net.backbone.conv2
    weights = [(s.conv.weight.detach(), s.conv.bias.detach()) for s in (first, second)]
    seen = [[], []]
    for batch in x.split(size):
        values = conv2d(batch, *weights[0]).numpy().astype(np.float64)
        seen[0].append(values)
        mean = values.mean((0, 2, 3), keepdims=True)
        var = values.var((0, 2, 3), keepdims=True)
        values = (values - mean) / np.sqrt(var + first.norm.eps)
        values *= first.norm.weight.detach().numpy()[None, :, None, None]
        values += first.norm.bias.detach().numpy()[None, :, None, None]
        n, c, h, w = values.shape
        values = values.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5)).clip(0)
        seen[1].append(conv2d(torch.from_numpy(values).float(), *weights[1]).numpy())
    for stage, found in zip((first, second), seen, strict=True):
        values = np.concatenate(found).astype(np.float64)
        assert stage.norm.target_running_mean.numpy() == pytest.approx(
            values.mean((0, 2, 3)), abs=1e-5
        )
        assert stage.norm.target_running_var.numpy() == pytest.approx(
            values.var((0, 2, 3)) * (m := values[:, 0].size) / (m - 1), rel=1e-4
        )
        assert int(stage.norm.target_num_batches_tracked) > 0  # so evaluation uses them


def test_all_the_rest_stays_to_the_bit(tmp_path):
    session, before = adapted(tmp_path / "run")
    assert moved(session, before) == {key for key in before if "target_" in key}
    net, x = session.net.eval(), images_of(session)[:50]
    with torch.no_grad():
        logits = {
            d: session.method.predict(net, x, Query(domain=d)).scores for d in ("source", "target")
        }
        net.load_state_dict(before)
        old = session.method.predict(net, x, Query(domain="source")).scores
    assert torch.equal(logits["source"], old)
    assert not torch.equal(logits["target"], old)


def test_joint_statistics_are_replaced(tmp_path):
    session, before = adapted(tmp_path / "run", "batch_norm=joint")
    statistics = {key for key in before if "running" in key or "num_batches_tracked" in key}
    assert moved(session, before) == statistics
    first = session.net.backbone.conv1
    values = first.conv(images_of(session))
    assert torch.allclose(first.norm.running_mean, values.mean((0, 2, 3)), atol=1e-5)


def test_the_last_phase_has_no_step_and_no_source(tmp_path):
    session, _ = adapted(tmp_path / "run")
    last = session.phases[-1]
    assert (last.name, last.streams, last.steps) == ("adapt", ("target",), 0)
    rows = [row for row in session.run_dir.read_metrics() if row["split"] == "eval"]
    assert [row["phase"] for row in rows][-2:] == ["source", "adapt"]


def test_frozen_stages_keep_the_sources(tmp_path):
    session, before = adapted(tmp_path / "run", "transfer.freeze=[backbone.conv1]")
    assert moved(session, before) == {key for key in before if "conv2.norm.target_" in key}


def test_moments_are_merged_without_loss():
    values = torch.randn(90, 3, 4) + 1000.0  # E[x²] − E[x]² would lose all digits
    moments = Moments()
    for part in values.split([50, 30, 10]):
        moments.add(part)
    exact = values.double().transpose(0, 1).flatten(1)
    assert torch.allclose(moments.mean.double(), exact.mean(1), rtol=1e-6)
    assert torch.allclose(moments.square.double() / (moments.count - 1), exact.var(1), rtol=1e-4)


def test_a_net_without_batch_norm_is_refused_before_training(tmp_path):
    session = small.session(tmp_path / "run", *OPTIONS, "backbone.batch_norm=false")
    with pytest.raises(ConfigError, match=r"method=adabn .*backbone\.batch_norm=true"):
        check_phases(session)


def test_steps_of_the_last_phase_are_refused_before_training(tmp_path):
    session = small.session(tmp_path / "run", "method=adabn", "phases.adapt.steps=3")
    with pytest.raises(ConfigError, match=r"phases\.adapt\.steps=3"):
        check_phases(session)
