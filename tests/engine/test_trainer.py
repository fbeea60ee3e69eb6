"""The trainer: cadence, parts, accumulation, freezing, exact resume, faults."""

import json
import os
import random
import signal
from functools import cache

import pytest
import torch

from helpers import small
from helpers.hooks import Crash, call_before, crash_after_save, crash_before
from tlrun.engine import checkpoint
from tlrun.engine.hooks import Hooks
from tlrun.errors import ConfigError, Interrupted, RunError
from tlrun.experiment.start import termination_told
from tlrun.methods.base import Method, Phase, Update
from tlrun.methods.fine_tuning.source_only import SourceOnly


def rows(session):
    return [{k: v for k, v in row.items() if k != "time"} for row in session.run_dir.read_metrics()]


def weights(session):
    return {k: v.clone() for k, v in session.net.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def reopen(folder, *overrides):
    """A new process in effect: everything built again over the same run folder."""
    from tlrun.config.build import plain
    from tlrun.experiment.assemble import open_session
    from tlrun.experiment.auto import resolve_auto
    from tlrun.run_folder.run_dir import RunDir

    return open_session(RunDir(folder), plain(resolve_auto(small.composed(*overrides))))


class TwoPhases(SourceOnly):
    """Linear probe, then everything: for resume across phases."""

    def phases(self, data):
        return [
            Phase("probe", ("source",), steps=4, frozen=("backbone",)),
            Phase("tune", ("source",), steps=5, optimizer={"lr": 1e-4}),
        ]


RUNS = {
    "two streams": ("method=dann",),
    "alternating": ("method=dann_alternating", "method.label_steps=2"),
    "two phases": (),
    "augmented": (
        "method=dann",
        "data.augment.source={invert: 0.5, noise: 0.1, rotate: 15}",
        "trainer.accumulate=2",
        "trainer.grad_clip=1",
    ),
    "a teacher": ("method=fixmatch_da", "trainer.accumulate=2"),
    "a teacher and an anchor": ("method=dirt_t", "method.interval=2", "trainer.steps=3"),
    "weights of classes": ("method=pada", "method.reweight_every=2"),
    "blended": ("method=dann", "data.augment.source.blend=0.5"),
}


def prepared(session, name):
    if name == "two phases":
        session.method = TwoPhases()
        session.phases[:] = session.method.phases(session.data)
    return session


def options_of(name):
    return (*RUNS[name], "trainer.checkpoint_every=2", "backbone.dropout=0.5")


@pytest.fixture(scope="module")
def straight_of(tmp_path_factory):
    """straight_of(name): the session of RUNS, trained without a stop; nobody changes it."""

    @cache
    def trained(name):
        session = small.session(tmp_path_factory.mktemp("straight") / "run", *options_of(name))
        prepared(session, name).trainer().fit()
        return session

    return trained


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("at", [1, 4, 5])
def test_a_crash_and_a_resume_equal_a_straight_run(name, at, tmp_path, straight_of):
    options, straight = options_of(name), straight_of(name)
    broken = prepared(small.session(tmp_path / "broken", *options), name)
    with pytest.raises(Crash):
        broken.trainer(crash_before(at)).fit()
    torch.rand(3)  # another process has other random states
    resumed = prepared(reopen(tmp_path / "broken", *options), name)
    resumed.trainer().fit()
    assert equal(weights(straight), weights(resumed))
    assert rows(straight) == rows(resumed)
    ours, theirs = (checkpoint.load_last(s.run_dir.checkpoints) for s in (straight, resumed))
    assert ours["counters"]["images_seen"] == theirs["counters"]["images_seen"]


def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(tmp_path):
    straight = small.session(tmp_path / "straight")
    straight.trainer().fit()
    session = small.session(tmp_path / "run")
    signalled = call_before(3, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted, match="tlrun resume") as stopped:
        session.trainer(signalled).fit()
    assert stopped.value.exit_code == 143
    assert checkpoint.load_last(session.run_dir.checkpoints)["step"] == 4
    resumed = reopen(tmp_path / "run")
    resumed.trainer().fit()
    assert equal(weights(straight), weights(resumed))
    assert rows(straight) == rows(resumed)


def test_a_signal_in_a_refresh_before_the_first_step_does_not_wait(tmp_path):
    session = small.session(tmp_path / "run", "method=pada", "method.reweight_every=2")
    seen = []

    def refresh(phase, net, data, progress):
        seen.append(progress.step)
        signal.raise_signal(signal.SIGTERM)
        seen.append("went on")

    session.method.refresh = refresh
    with termination_told(), pytest.raises(KeyboardInterrupt) as stopped:
        session.trainer().fit()
    assert stopped.value.exit_code == 143
    assert seen == [0]


def test_a_signal_behind_the_last_check_of_a_phase_is_not_lost(tmp_path):
    session = prepared(small.session(tmp_path / "run"), "two phases")
    trainer = session.trainer()
    follow = trainer._follow_cadence

    def and_then(run, done):
        follow(run, done)
        if done == run.total:
            signal.raise_signal(signal.SIGTERM)

    trainer._follow_cadence = and_then
    with pytest.raises(Interrupted, match="stopped at step 4; go on") as stopped:
        trainer.fit()
    assert stopped.value.exit_code == 143
    assert checkpoint.load_last(session.run_dir.checkpoints)["step"] == 4


def test_the_loop_is_the_same_as_twenty_lines_by_hand(tmp_path):
    """Independent calculation: the same batches, losses and SGD, without the engine."""
    options = ("method=source_only", "schedule=constant", "backbone.dropout=0", "optimizer=sgd")
    session = small.session(tmp_path / "a", *options)
    trainer = session.trainer()
    trainer.fit()
    by_hand = small.session(tmp_path / "b", *options)
    by_hand.build_all()
    net = by_hand.net.train()
    sgd = by_hand.cfg["optimizer"]
    optimizer = torch.optim.SGD(
        net.parameters(), lr=sgd["lr"], momentum=sgd["momentum"], nesterov=sgd["nesterov"]
    )
    stream = by_hand.trainer().open_streams(by_hand.phases[0])["source"]
    for step in range(6):
        batch = stream.batch(step)
        loss = torch.nn.functional.cross_entropy(net(batch.x).logits, batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for key, value in net.state_dict().items():
        assert torch.allclose(value, session.net.state_dict()[key], atol=1e-6), key


def test_accumulation_gives_the_same_weights_without_batch_norm(tmp_path):
    options = (
        *("backbone.batch_norm=false", "backbone.dropout=0", "optimizer=sgd"),
        "method.domain_dropout=0",
    )
    whole = small.session(tmp_path / "whole", *options)
    whole.trainer().fit()
    split = small.session(tmp_path / "split", *options, "trainer.accumulate=4")
    split.trainer().fit()
    for key, value in weights(whole).items():
        assert torch.allclose(value, split.net.state_dict()[key], atol=1e-6), key


def test_cadence_and_rows(tmp_path):
    session = small.session(
        *(tmp_path / "run", "selectors=[source_accuracy,snd]"),
        *("select.min_effective_classes=0", "select.source_floor=0"),
    )
    session.trainer().fit()
    found = session.run_dir.read_metrics()
    assert [r["step"] for r in found if r["split"] == "eval"] == [0, 3, 6]
    assert [r["step"] for r in found if r["split"] == "train"] == [2, 4, 6]
    train = next(r for r in found if r["split"] == "train")
    assert {
        "loss/classification",
        "loss/domain",
        "metric/lambda",
        "metric/domain_accuracy",
        "lr",
    } <= train.keys()
    kept = {p.stem for p in session.run_dir.checkpoints.glob("*.pt")}
    assert {"last", "previous", "information_maximization", "source_accuracy", "snd"} <= kept
    sidecar = json.loads((session.run_dir.checkpoints / "snd.json").read_text())
    row = next(r for r in found if r["split"] == "eval" and r["step"] == sidecar["step"])
    assert sidecar["value"] == row["validator/snd"]
    assert [r["phase_step"] for r in found if r["split"] == "eval"] == [0, 3, 6]
    assert sidecar["step"] > 0


def test_frozen_parts_keep_parameters_and_buffers(tmp_path):
    session = prepared(small.session(tmp_path / "run"), "two phases")
    session.phases[:] = session.phases[:1]
    start = {k: v.clone() for k, v in session.net["backbone"].state_dict().items()}
    session.trainer().fit()
    assert equal(start, dict(session.net["backbone"].state_dict()))
    assert all(p.requires_grad for p in session.net.parameters())  # the next phase decides anew


def test_an_unfrozen_backbone_does_move(tmp_path):
    session = small.session(tmp_path / "run", "method=source_only")
    start = {k: v.clone() for k, v in session.net["backbone"].state_dict().items()}
    session.trainer().fit()
    assert not equal(start, dict(session.net["backbone"].state_dict()))


class Exploding(SourceOnly):
    def step(self, net, batch, phase, progress):
        for update in super().step(net, batch, phase, progress):
            if progress.step == 4:
                update.losses["penalty"] = update.losses["classification"] * float("inf")
            yield update


def test_a_loss_that_is_not_finite_stops_and_names_the_term(tmp_path):
    session = small.session(tmp_path / "run", "method=source_only", "trainer.checkpoint_every=2")
    session.method = Exploding()
    with pytest.raises(RunError, match=r"the loss 'penalty' is inf at step 4.*optimizer.lr"):
        session.trainer().fit()
    good = checkpoint.load_last(session.run_dir.checkpoints)
    assert good["step"] == 4
    assert all(torch.isfinite(v).all() for p in good["parts"].values() for v in p.values())


class ClosedForm(Method):
    """No step at all: `start` writes its result into a part."""

    def phases(self, data):
        return [Phase("solve", (), steps=0)]

    def build(self, phase, net, data):
        net.add("classifier", net.new_head(data.num_classes))

    def start(self, phase, net, data):
        torch.nn.init.zeros_(net["classifier"].out.weight)

    def step(self, net, batch, phase, progress):
        yield Update({})


def test_a_phase_of_no_steps_is_evaluated_and_saved(tmp_path):
    session = small.session(tmp_path / "run", "select.min_effective_classes=0")
    session.method = ClosedForm()
    session.phases[:] = session.method.phases(session.data)
    session.trainer().fit()
    assert checkpoint.load_last(session.run_dir.checkpoints)["step"] == 0
    assert not session.net["classifier"].out.weight.any()
    (row,) = rows(session)
    assert "phase_step" not in row  # so the only row of the phase may be chosen
    assert (session.run_dir.checkpoints / "information_maximization.pt").exists()


def test_epochs_count_the_stream(tmp_path):
    session = small.session(tmp_path / "run", "trainer.epochs=2", "trainer.steps=null")
    assert session.trainer().total_steps(session.phases[0]) == 2 * 600 // 8


def test_phase_overrides(tmp_path):
    session = small.session(
        tmp_path / "run", "phases.train.steps=3", "phases.train.optimizer.lr=0.5"
    )
    assert session.phases[0].steps == 3
    assert session.phases[0].optimizer == {"lr": 0.5}
    with pytest.raises(ConfigError, match="no such phase; it has train"):
        small.session(tmp_path / "other", "phases.probe.steps=3")


def test_another_number_of_processes_is_refused(tmp_path):
    session = small.session(tmp_path / "run")
    session.trainer().fit()
    again = reopen(tmp_path / "run")
    again.process.world = 2
    with pytest.raises(ConfigError, match=r"trainer\.devices=1"):
        again.trainer().restore(checkpoint.load_last(session.run_dir.checkpoints), None)


def test_an_update_without_anything_to_train_says_so(tmp_path):
    session = small.session(
        tmp_path / "run", "method=mcd", "phases.train.frozen=[classifier, classifier2]"
    )
    with pytest.raises(ConfigError, match="has nothing to train: all of it is frozen"):
        session.trainer().fit()


def test_setting_free_what_a_method_holds_still_is_said(tmp_path, caplog):
    small.session(tmp_path / "run", "method=shot", "phases.target.frozen=[backbone.conv1]")
    assert "phases.target.frozen replaces the method's own: classifier will train" in caplog.text


# ---- what a rule may still choose: the score falls while the source is still being learned ----

SCRIPT = {  # step: (score, source accuracy); the floor ends at 0.9 * 0.58 = 0.522
    0: (9.0, 0.30),  # not trained yet
    1: (0.9, 0.50),  # the best score of a trained net, until step 5 shows what it has forgotten
    2: (0.8, 0.52),
    3: (0.7, 0.54),  # the choice
    4: (0.6, 0.40),
    5: (0.5, 0.58),
    6: (0.1, 0.56),
    7: (0.0, 0.63),  # of a longer run: the floor rises to 0.567, and step 5 is the choice
}
SCRIPTED = ("method=source_only", "trainer.eval_every=1", "trainer.checkpoint_every=2")
IM = "information_maximization"


class Scripted:
    """An evaluator with the figures of SCRIPT instead of measured ones."""

    rules = ()
    batch_size, target_test = 100, True  # for the activations of what is frozen

    def row(self, net):
        score, source = SCRIPT[self.script_step()]
        return {f"validator/{IM}": score, "source_val/accuracy": source}


def scripted(session, name="one phase", hooks=None):
    """A trainer whose evaluations follow SCRIPT."""
    if name == "two phases":  # the script begins with the second
        session.method = TwoPhases()
        session.phases[:] = session.method.phases(session.data)
    begin = 4 if name == "two phases" else 0
    session.evaluator = evaluator = Scripted()
    trainer = session.trainer(hooks)
    evaluator.script_step = lambda: max(0, trainer.global_step - begin)
    return trainer


def kept(session):
    """{file: step} of the selection's checkpoints, whose sha256 and weights are looked at too."""
    folder = session.run_dir.checkpoints
    files = [folder / f"{IM}.pt", *folder.glob("candidates/*.pt")]
    loaded = {str(f.relative_to(folder)): checkpoint.load(f) for f in files}
    assert all(f.with_suffix(".json").exists() for f in files)
    return loaded


def same_selection(a, b):
    ours, theirs = kept(a), kept(b)
    assert ours.keys() == theirs.keys()
    for name, state in ours.items():
        other = theirs[name]
        assert (state["step"], state["phase"]) == (other["step"], other["phase"])
        assert all(equal(part, other["parts"][key]) for key, part in state["parts"].items())
    files = [sorted(p.name for p in s.run_dir.checkpoints.rglob("*.*")) for s in (a, b)]
    assert files[0] == files[1]


def test_the_floor_looks_at_the_whole_phase(tmp_path):
    session = small.session(tmp_path / "run", *SCRIPTED)
    scripted(session).fit()
    assert {name: state["step"] for name, state in kept(session).items()} == {
        f"{IM}.pt": 3,
        "candidates/0005.pt": 5,  # could win if the run became longer
    }
    sidecar = json.loads((session.run_dir.checkpoints / f"{IM}.json").read_text())
    assert (sidecar["step"], sidecar["metric"], sidecar["value"]) == (3, IM, 0.7)


def test_a_longer_budget_may_choose_what_has_waited(tmp_path):
    scripted(small.session(tmp_path / "run", *SCRIPTED)).fit()
    longer = reopen(tmp_path / "run", *SCRIPTED, "trainer.steps=7")
    scripted(longer).fit()
    assert {name: state["step"] for name, state in kept(longer).items()} == {
        f"{IM}.pt": 5,
        "candidates/0007.pt": 7,
    }


def test_weights_that_were_deleted_by_hand_are_missed_aloud(tmp_path, caplog):
    session = small.session(tmp_path / "run", *SCRIPTED)
    folder = session.run_dir.checkpoints
    delete = Hooks(before_publish=lambda: checkpoint.keep_candidates(folder, {5}))
    scripted(session, hooks=delete).fit()
    assert f"select={IM} chose step 3, whose weights are gone" in caplog.text
    assert session.selected_path.stem == "last"
    assert "the weights of the step that it chose (3) are gone" in session.why_last()


class Strike:
    """Dies before the n-th change of a file, and counts them."""

    def __init__(self, patch, at=None):
        self.count, self.at = 0, at
        for name in ("replace", "unlink", "link"):
            patch.setattr(os, name, self._before(getattr(os, name)))

    def _before(self, function):
        def struck(*arguments, **options):
            self.count += 1
            if self.count == self.at:
                raise Crash
            return function(*arguments, **options)

        return struck


def strike_and_compare(name, moments, tmp_path, monkeypatch):
    straight = small.session(tmp_path / "straight", *SCRIPTED)
    with monkeypatch.context() as patch:
        total = Strike(patch)
        scripted(straight, name).fit()
    assert total.count > 40
    for at in moments(total.count):
        folder = tmp_path / f"struck_{at}"
        session = small.session(folder, *SCRIPTED)
        trainer = scripted(session, name)
        with monkeypatch.context() as patch:
            Strike(patch, at)
            with pytest.raises(Crash):
                trainer.fit()
        resumed = reopen(folder, *SCRIPTED)
        scripted(resumed, name).fit()
        assert rows(straight) == rows(resumed), at
        same_selection(straight, resumed)


@pytest.mark.parametrize("name", ["one phase", "two phases"])
def test_a_kill_between_files_leaves_the_selection_of_the_straight_run(name, tmp_path, monkeypatch):
    def some(count):
        return sorted(random.Random(name).sample(range(1, count + 1), 4))

    strike_and_compare(name, some, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one phase", "two phases"])
def test_a_kill_before_any_change_of_a_file(name, tmp_path, monkeypatch):
    strike_and_compare(name, lambda count: range(1, count + 1), tmp_path, monkeypatch)


def test_a_damaged_newest_checkpoint_costs_no_candidate(tmp_path):
    """Going on from `previous.pt`, whose rows still need what newer ones have made superfluous."""
    straight = small.session(tmp_path / "straight", *SCRIPTED)
    scripted(straight).fit()
    broken = small.session(tmp_path / "broken", *SCRIPTED)
    with pytest.raises(Crash):
        scripted(broken, hooks=crash_after_save(6)).fit()
    (broken.run_dir.checkpoints / "last.pt").write_bytes(b"x")
    resumed = reopen(tmp_path / "broken", *SCRIPTED)
    scripted(resumed).fit()
    assert rows(straight) == rows(resumed)
    same_selection(straight, resumed)
