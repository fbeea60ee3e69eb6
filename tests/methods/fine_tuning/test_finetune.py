"""Fine-tuning and its relatives: phases, heads of other classes, freezing, resume, selection."""

import csv
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import small
from helpers.hooks import Crash, crash_before, crash_before_save
from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.engine import checkpoint
from tlrun.engine.hooks import Hooks
from tlrun.errors import ConfigError
from tlrun.experiment.assemble import open_session
from tlrun.experiment.auto import resolve_auto
from tlrun.experiment.start import create_run_folder, run_experiment
from tlrun.methods.fine_tuning.finetune import SOURCE_HEAD
from tlrun.methods.fine_tuning.gradual_unfreeze import GradualUnfreeze
from tlrun.methods.fine_tuning.lp_ft import LPFT
from tlrun.run_folder.run_dir import RunDir

SHORT = (
    "target_labels=3",
    "select=last",
    "phases.source.steps=4",
    "phases.target.steps=4",
    "trainer.checkpoint_every=2",
    "trainer.eval_every=2",
)


def rows(session):
    return [{k: v for k, v in row.items() if k != "time"} for row in session.run_dir.read_metrics()]


def weights(session):
    return {k: v.clone() for k, v in session.net.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def names(session):
    return [phase.name for phase in session.phases]


def reopen(folder, *overrides):
    return open_session(RunDir(folder), plain(resolve_auto(small.composed(*overrides))))


# ---- phases -------------------------------------------------------------------------------------


def test_the_source_comes_first_then_the_target_from_its_weights(tmp_path):
    session = small.session(tmp_path / "run", "method=finetune", *SHORT)
    held = {}

    def watch(step):
        if step.phase.name == "target" and step.progress.step == 0:
            held.update(weights(session))
        assert list(step.batch) == [step.phase.name]

    session.trainer(Hooks(before_step=watch)).fit()
    done = [row for row in rows(session) if row["split"] == "train"]
    assert [(row["phase"], row["step"]) for row in done] == [
        ("source", 2), ("source", 4), ("target", 6), ("target", 8)
    ]  # fmt: skip
    assert not equal(held, weights(session))
    source = small.session(tmp_path / "source", "method=source_only", *SHORT[:2], "trainer.steps=4")
    source.trainer().fit()
    assert equal(held, weights(source))  # the source phase is source_only's training, bit by bit


@pytest.mark.parametrize("labels", [1, 3])
def test_the_drawn_labels_are_counted(labels, tmp_path):
    session = small.session(tmp_path / "run", "method=finetune", f"target_labels={labels}")
    assert session.data.target_labels_seen == 10 * labels
    assert session.data.domains["target"].train.class_counts() == dict.fromkeys(
        map(str, range(10)), labels
    )


def test_more_labels_include_the_fewer(tmp_path):
    def images(labels):
        session = small.session(
            tmp_path / f"k{labels}", "method=finetune", f"target_labels={labels}", "seed=3"
        )
        drawn = session.data.domains["target"].train
        return {drawn.read(torch.tensor([i])).numpy().tobytes() for i in range(len(drawn))}

    assert images(1) < images(2) < images(5)


def test_a_head_of_its_own_learning_rate_and_stages_of_theirs(tmp_path):
    keys = ("optimizer.head_lr_multiplier=10", "optimizer.layer_decay=0.5", "schedule=constant")
    session = small.session(tmp_path / "run", "method=finetune", *SHORT, *keys, "optimizer.lr=0.01")
    session.trainer().fit()
    groups = checkpoint.load_last(session.run_dir.checkpoints)["optimizer"]["param_groups"]
    assert {group["name"]: group["lr"] for group in groups} == {
        "backbone.conv1": 0.0025,
        "backbone.conv2": 0.005,
        "classifier": 0.1,
    }
    assert {row["lr"] for row in rows(session) if row["split"] == "train"} == {0.01}


# ---- LP-FT --------------------------------------------------------------------------------------


LP_FT = ("method=lp_ft", "method.probe_steps=3", *SHORT)


def test_lp_ft_probes_with_a_still_backbone_then_tunes_with_a_small_rate(tmp_path):
    session = small.session(tmp_path / "run", *LP_FT, "method.probe_lr=0.1", "schedule=constant")
    assert names(session) == ["source", "probe", "target"]
    before, seen = {}, []

    def watch(step):
        after = weights(session)
        moved = {key.split(".")[1] for key in after if not torch.equal(before[key], after[key])}
        rates = {group["name"]: group["lr"] for group in step.optimizer.param_groups}
        seen.append((step.phase.name, moved, rates, step.optimizer))  # held: an id may come again

    remember = lambda _step: before.update(weights(session))  # noqa: E731
    session.trainer(Hooks(before_step=remember, after_step=watch)).fit()
    both = {"backbone", "classifier"}
    assert [(name, moved) for name, moved, *_ in seen] == [
        *[("source", both)] * 4,
        *[("probe", {"classifier"})] * 3,  # the batch statistics of the backbone included
        *[("target", both)] * 4,
    ]
    assert seen[4][2] == {"classifier": 0.1}
    assert seen[7][2] == {"backbone": 1e-4, "classifier": 1e-4}
    assert len({id(optimizer) for *_, optimizer in seen}) == 3


def test_lp_ft_by_default_takes_the_common_steps_and_rate():
    method = LPFT(tune_lr=None)
    method.init = "scratch"
    probe, tune = method.phases(None)
    assert (probe.steps, probe.optimizer, probe.terms, probe.transfer) == (None, {}, False, True)
    assert (tune.steps, tune.optimizer, tune.terms, tune.transfer) == (None, {}, True, False)


# ---- gradual unfreezing -------------------------------------------------------------------------


def test_gradual_unfreezing_goes_from_the_head_down(tmp_path):
    session = small.session(
        tmp_path / "run", "method=gradual_unfreeze", "method.thaw_steps=1", *SHORT
    )
    assert names(session) == ["source", "thaw0", "thaw1", "target"]
    before, moved = {}, {}

    def watch(step):
        after = weights(session)
        moved[step.phase.name] = {
            ".".join(key.split(".")[1:3])
            for key in after
            if not torch.equal(before[key], after[key])
        }

    remember = lambda _step: before.update(weights(session))  # noqa: E731
    session.trainer(Hooks(before_step=remember, after_step=watch)).fit()
    head = {"classifier.fc1", "classifier.fc2", "classifier.out"}
    assert moved["thaw0"] == head
    assert moved["thaw1"] == head | {"backbone.conv2"}
    assert moved["target"] == head | {"backbone.conv2", "backbone.conv1"}


def test_terms_are_started_once_and_go_on(tmp_path):
    """A penalty on leaving the source weights must not take a later phase's for them."""
    session = small.session(
        tmp_path / "run",
        "method=gradual_unfreeze",
        "method.thaw_steps=1",
        *SHORT,
        "terms=[entropy]",
    )
    assert [phase.terms for phase in session.phases] == [False, True, "continue", "continue"]
    (term,) = session.terms.values()
    started, joined = [], []
    term.start = lambda net, data: started.append(session.net.carried)
    term.loss = lambda update, net: joined.append(1) or {}
    session.trainer().fit()
    assert len(started) == 1
    assert len(started[0]) == 5
    assert len(joined) == 1 + 1 + 4


def test_gradual_unfreezing_needs_a_first_phase():
    with pytest.raises(ConfigError, match=r"method\.thaws=0: expected a whole number from 1"):
        small.configured(GradualUnfreeze, thaws=0)


# ---- frozen means frozen ------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_frozen_stages_keep_parameters_and_buffers_bit_by_bit(optimizer, tmp_path):
    keys = ("transfer.freeze=[backbone.conv1,classifier.fc1]", "optimizer.weight_decay=0.1")
    session = small.session(
        tmp_path / "run", "method=finetune", *SHORT, *keys, f"optimizer={optimizer}"
    )
    held = {}

    def watch(step):
        if step.phase.name == "target" and step.progress.step == 0:
            held.update(weights(session))

    session.trainer(Hooks(before_step=watch)).fit()
    after = weights(session)
    still = {key for key in held if torch.equal(held[key], after[key])}
    assert still == {k for k in held if "backbone.conv1." in k or "classifier.fc1." in k}
    assert any("running_mean" in key for key in still)


def test_surgical_fine_tuning_of_the_first_block_alone(tmp_path):
    """Lee et al. 2023: all but one block are held still."""
    session = small.session(tmp_path / "run", "method=finetune", *SHORT, "transfer.freeze=['[1:]']")
    session.trainer().fit()
    frozen = {
        row["stage"]: row["frozen"] for row in RunDir.read_json(session.run_dir.transfer, list)
    }
    assert [stage for stage, still in frozen.items() if not still] == ["backbone.conv1"]


# ---- resume -------------------------------------------------------------------------------------


METHODS = {
    "finetune": ("method=finetune", *SHORT, "transfer.reinit=[backbone.conv2]"),
    "lp_ft": (*LP_FT, "transfer.cut=3", "transfer.freeze_carried=true"),
    "gradual_unfreeze": ("method=gradual_unfreeze", "method.thaw_steps=2", *SHORT),
    "layer_decay": ("method=finetune", *SHORT, "optimizer.layer_decay=0.3"),
}


def options_of(name):
    return (*METHODS[name], "backbone.dropout=0.5")


@pytest.fixture(scope="module")
def straight_of(tmp_path_factory):
    """straight_of(name): the session of METHODS, trained without a stop; nobody changes it."""

    @cache
    def trained(name):
        session = small.session(tmp_path_factory.mktemp("straight") / "run", *options_of(name))
        session.trainer().fit()
        return session

    return trained


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("crash", "at"),
    [
        *[(crash_before, 3), (crash_before, 4), (crash_before, 5)],
        *[(crash_before_save, 6), (crash_before, 7)],
    ],
    ids=["in the source phase", "at the boundary", "past it", "before a save", "in the next"],
)
def test_a_crash_and_a_resume_equal_a_straight_run(name, crash, at, tmp_path, straight_of):
    options, straight = options_of(name), straight_of(name)
    broken = small.session(tmp_path / "broken", *options)
    with pytest.raises(Crash):
        broken.trainer(crash(at)).fit()
    torch.rand(3)  # another process has other random states
    resumed = reopen(tmp_path / "broken", *options)
    resumed.trainer().fit()
    assert equal(weights(straight), weights(resumed))
    assert rows(straight) == rows(resumed)
    assert straight.net.carried == resumed.net.carried
    ours, theirs = (s.run_dir.read_json(s.run_dir.transfer, list) for s in (straight, resumed))
    assert ours == theirs


# ---- selection ----------------------------------------------------------------------------------


def test_only_rows_of_the_last_phase_are_selected_among(tmp_path):
    session = small.session(tmp_path / "run", *LP_FT, "select.min_effective_classes=0")
    session.trainer().fit()
    evaluations = [row for row in rows(session) if row["split"] == "eval"]
    for row in evaluations:  # the earlier phases score best
        row["validator/source_accuracy"] = 0.9 if row["phase"] == "source" else 0.1
        row["oracle/target_test_accuracy"] = 1.0 if row["phase"] == "probe" else 0.0
    for rule in ("source_accuracy", "oracle", "last"):
        assert session.choose(evaluations, rule)["phase"] == "target"
    earlier = [row for row in evaluations if row["phase"] != "target"]
    assert session.choose(earlier, "source_accuracy") is None


def test_earlier_phases_keep_no_checkpoint_of_a_rule(tmp_path):
    session = small.session(
        tmp_path / "run",
        *LP_FT,
        "selectors=[source_accuracy]",
        "select.min_effective_classes=0",
        "select.source_floor=0",
    )
    session.trainer().fit()
    rows = [row for row in session.run_dir.read_metrics() if row["split"] == "eval"]
    assert {row["phase"] for row in rows} == {"source", "probe", "target"}
    state = checkpoint.load(session.run_dir.checkpoints / "source_accuracy.pt")
    assert state["phase"] == "target"


# ---- other classes in source and target ---------------------------------------------------------

COLOURS = {"red": 0, "green": 1, "blue": 2, "grey": None}


def draw(folder, classes, count, seed):
    """Noisy images of a colour in a folder per class."""
    generator = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = generator.integers(0, 120, (16, 16, 3))
            if (channel := COLOURS[name]) is not None:
                image[..., channel] += 120
            Image.fromarray(image.astype(np.uint8)).save(folder / name / f"{i}.png")


@pytest.fixture(params=[2, 4], ids=["fewer in the target", "more in the target"])
def folders(request, tmp_path, monkeypatch):
    """Overrides for a source and a target of other classes, one more or one less."""
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "cache"))
    target = list(COLOURS)[-request.param :]
    draw(tmp_path / "from", ["red", "green", "blue"], 20, 0)
    draw(tmp_path / "to", target, 20, 1)
    return target, [
        "data=folder",
        f"data.source.root={tmp_path / 'from'}",
        f"data.target.root={tmp_path / 'to'}",
        "data.size=16",
    ]


@pytest.mark.parametrize("method", ["finetune", "lp_ft", "gradual_unfreeze"])
def test_other_classes_have_heads_of_their_own(method, folders, tmp_path, monkeypatch):
    target, data = folders
    quick = [word for word in small.QUICK if not word.startswith("trainer.steps")]
    words = [
        *quick, *data, f"method={method}", "target_labels=all", "select=last", "trainer.steps=3"
    ]  # fmt: skip
    words += [] if method == "finetune" else ["report=none"]  # one page of such a run is enough
    run = create_run_folder(compose(words), tmp_path / "run", words)
    summary = run_experiment(run)
    found = [row for row in run.read_metrics() if row["split"] == "eval"]
    source = [row for row in found if row["phase"] == "source"]
    assert source
    assert not any(key.startswith(("target_val/", "oracle/")) for row in source for key in row)
    after = [row for row in found if row["phase"] != "source"]
    assert all("target_val/accuracy" in row and "source_val/accuracy" in row for row in after)
    table = {row["stage"]: row for row in run.read_json(run.transfer, list)}
    assert table["classifier.out"]["why"] == "nothing to carry"
    assert table[f"{SOURCE_HEAD}.out"]["origin"] == "carried"
    assert table["backbone.conv1"]["origin"] == "carried"
    assert set(summary["selected"]["target_test/accuracy_by_class"]) == set(target)
    assert set(summary["selected"]["source_test/accuracy_by_class"]) == {"red", "green", "blue"}

    from tlrun.experiment.evaluate import evaluate
    from tlrun.inference.predict import load

    figures = evaluate(run.path)
    for split in ("source_test", "target_test"):
        assert figures[f"{split}/accuracy"] == summary["selected"][f"{split}/accuracy"]
    files = sorted((tmp_path / "to").rglob("*.png"))[:6]
    model = load(run.path)
    assert model.classes == tuple(sorted(target))
    assert {p.label for p in model.predict_files(files)} <= set(target)
    model = load(run.path, task="source")
    assert model.classes == ("blue", "green", "red")
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 3)
    written = list(csv.DictReader(run.predictions.open()))
    assert {row["label"] for row in written} == set(target)


def test_a_head_of_other_classes_leaves_no_trace_of_the_target_in_the_source_phase(
    folders, tmp_path
):
    """The source phase of a run with other target classes is that of source_only."""
    _, data = folders
    keys = (*data, *SHORT, "trainer.steps=4")
    session = small.session(tmp_path / "run", "method=finetune", *keys)
    session.phases[:] = session.phases[:1]
    session.trainer().fit()
    assert "classifier" not in session.net.parts


LOSS = "loss/classification"


def test_few_labels_in_tiny_batches_leave_frozen_statistics_as_they_were(in_tmp, no_pages):
    """A net that has learned something is fine-tuned on 2 labels a class, 4 images a step."""
    longer = ("trainer.steps=80", "trainer.batch_size=32", "trainer.eval_every=80", "select=last")
    words = [*small.QUICK, *longer, "optimizer.lr=0.01", "backbone.batch_norm=true"]
    start = create_run_folder(compose([*words, "method=source_only"]), in_tmp / "start", words)
    run_experiment(start)
    few = ("method=finetune", "target_labels=2", f"init={start.path}", "trainer.batch_size=4")
    more = ("trainer.steps=60", "optimizer.lr=0.01", "trainer.eval_every=60", "select=last")
    statistics, losses = {}, {}
    for mode in ("frozen", "auto"):
        session = small.session(
            in_tmp / mode, *few, *more, "backbone.batch_norm=true", f"batch_norm={mode}"
        )
        began = {}

        def watch(step, session=session, began=began):
            if step.global_step == 0:
                began.update({k: v.clone() for k, v in session.net.state_dict().items()})

        session.trainer(Hooks(before_step=watch)).fit()
        after = session.net.state_dict()
        buffers = [key for key in after if "running_" in key or "num_batches" in key]
        statistics[mode] = {key: torch.equal(began[key], after[key]) for key in buffers}
        weights = [k for k, p in session.net.named_parameters() if "backbone" in k and p.ndim > 1]
        assert not any(torch.equal(began[key], after[key]) for key in weights)
        rows = session.run_dir.read_metrics()
        losses[mode] = [row[LOSS] for row in rows if LOSS in row]
    assert statistics["frozen"]
    assert all(statistics["frozen"].values())
    assert not any(statistics["auto"].values())
    assert sum(losses["frozen"][-10:]) < sum(losses["frozen"][:10])
