"""WiSE-FT: the mixture of weights, its ends, its statistics; one run, a row for each α."""

import pytest
import torch

from helpers import sessions, small
from helpers.hooks import Crash
from tlrun.engine import checkpoint
from tlrun.errors import ConfigError

WISE = ("method=wise_ft", "method.grid=[0, 0.25, 1]", "trainer.steps=4")
SETTLED = "method.recompute_batch_norm=false"


@pytest.fixture
def ends(tmp_path):
    """θ₀ and θ₁ of a fine-tuning with the same seed, and what every option needs."""
    start, _ = sessions.paused(tmp_path / "start", "trainer.steps=4")
    begin = {k: v.clone() for k, v in start.net.state_dict().items()}
    tuned = small.session(tmp_path / "tuned", *sessions.FEW, "trainer.steps=4")
    tuned.trainer().fit()
    return begin, tuned.net.state_dict()


def run(folder, *options):
    session = small.session(folder, *sessions.FEW, *WISE, *options)
    session.trainer().fit()
    return session


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_result_is_the_mixture(alpha, ends, tmp_path):
    session = run(tmp_path / "run", SETTLED, f"method.alpha={alpha}")
    for key, value in session.net.state_dict().items():
        before, after = (end[key] for end in ends)
        if not value.is_floating_point():
            assert torch.equal(value, after)  # counters are skipped
        elif alpha in (0, 1):
            assert torch.equal(value, after if alpha else before)
        else:
            assert torch.allclose(value, (1 - alpha) * before + alpha * after, atol=1e-6)


@pytest.mark.parametrize("terms", ["[]", "[stoch_norm]"])
def test_batch_statistics_are_those_of_the_targets_training_images(terms, tmp_path):
    session = run(tmp_path / "run", f"terms={terms}")
    net, examples = session.net.eval(), session.data.role("target_train")
    x = session.data.preprocess(examples.read(torch.arange(len(examples))))
    for stage in (net.backbone.conv1, net.backbone.conv2):
        before, norm = stage.conv(x), stage.norm
        assert torch.allclose(norm.running_mean, before.mean((0, 2, 3)), atol=1e-3)
        assert torch.allclose(norm.running_var, before.var((0, 2, 3)), rtol=1e-2)
        assert norm.momentum == 0.1
        x = stage(x)


def test_frozen_stages_keep_their_statistics(ends, tmp_path):
    session = run(tmp_path / "run", "transfer.freeze=[backbone.conv1]")
    for key, value in session.net.state_dict().items():
        if "backbone.conv1" in key:
            assert torch.equal(value, ends[0][key]), key


def test_a_new_head_stays_as_it_was_trained(tmp_path):
    session = run(tmp_path / "run", "transfer.reinit=[classifier]", "method.alpha=0", SETTLED)
    start, _ = sessions.paused(tmp_path / "s", "trainer.steps=4", "transfer.reinit=[classifier]")
    for key, value in session.net.state_dict().items():
        if value.is_floating_point():
            same = torch.equal(value, start.net.state_dict()[key])
            assert same == ("classifier" not in key), key


def test_every_alpha_has_a_row_and_the_last_one_is_selected(tmp_path):
    session = run(
        tmp_path / "run", "select=last", "selectors=[target_accuracy]", "target_val_labels=all"
    )
    rows = [row for row in session.run_dir.read_metrics() if row["split"] == "eval"]
    assert [r["phase"] for r in rows[-4:]] == ["alpha_0", "alpha_0.25", "alpha_1", "interpolated"]
    assert all(row["source_val/accuracy"] is not None for row in rows)
    kept = checkpoint.load(session.run_dir.checkpoints / "target_accuracy.pt")
    assert kept["phase"] == "interpolated"  # target labels choose no α
    assert kept["method"] == {"ends": []}


@pytest.mark.parametrize("at", ["in the target phase", "between two alphas"])
def test_kill_and_resume(at, tmp_path, monkeypatch):
    if at == "in the target phase":
        sessions.resumed_equals_straight(tmp_path, *WISE)
        return
    straight = run(tmp_path / "straight")
    broken = small.session(tmp_path / "broken", *sessions.FEW, *WISE)
    start = broken.method.start

    def dying(phase, *arguments):
        if phase.name == "alpha_0.25":
            raise Crash
        start(phase, *arguments)

    broken.method.start = dying
    with pytest.raises(Crash):
        broken.trainer().fit()
    resumed = sessions.reopened(tmp_path / "broken", *sessions.FEW, *WISE)
    resumed.trainer().fit()
    ours, theirs = straight.net.state_dict(), resumed.net.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert sessions.rows(straight) == sessions.rows(resumed)


def test_what_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"method\.alpha=2: expected a number from 0 to 1"):
        small.session(tmp_path / "a", "method=wise_ft", "method.alpha=2")
    with pytest.raises(ConfigError, match="weights to start from"):
        small.session(tmp_path / "b", "method=wise_ft", "init=scratch")
