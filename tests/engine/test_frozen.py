"""What is frozen is computed once for each image, and changes no figure."""

import logging
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf

from helpers import small
from helpers.every_method import METHODS, session_of
from helpers.hooks import Crash
from helpers.sessions import reopened, rows
from tlrun.config.build import locate
from tlrun.config.packaged import conf_dir
from tlrun.data.pipeline import activations
from tlrun.data.pipeline.activations import Activations
from tlrun.engine import frozen
from tlrun.engine.frozen import frozen_kept
from tlrun.engine.hooks import Hooks
from tlrun.methods.base import Method, Term
from tlrun.methods.fine_tuning.finetune import Finetune
from tlrun.models.backbones import DannCNN
from tlrun.models.net import Net

WITHOUT_STEPS = {"clip_zero_shot", "linear_probe", "tip_adapter"}  # `start` does all the work
NEED_IMAGES = {"fixmatch_da", "self_ensembling", "vada", "dirt_t", "progressive"}
IN_A_PHASE = {"adda": ("adversarial",), "rotation": ("source",), "simclr": ("source",)}


@pytest.fixture
def always(monkeypatch):
    """Every stream is worth it, however few steps it is read for."""
    monkeypatch.setattr(frozen, "is_worth_it", lambda examples, images: True)


@pytest.fixture
def seen(monkeypatch):
    """The shapes of what backbones are given from here on."""
    shapes = []
    through = Net._through_backbone

    def record(net, x):
        shapes.append(tuple(x.shape[1:]))
        return through(net, x)

    monkeypatch.setattr(Net, "_through_backbone", record)
    return shapes


def assert_rows_alike(ours, theirs) -> None:
    for row, other in zip(ours, theirs, strict=True):
        assert row.keys() == other.keys()
        for key, value in row.items():
            if isinstance(value, float):
                assert value == pytest.approx(other[key], rel=1e-3, abs=1e-4, nan_ok=True), key
            else:
                assert value == other[key]


def test_every_method_says_whether_it_needs_images():
    told = {}
    for name in METHODS:
        cfg = OmegaConf.load(conf_dir() / "method" / f"{name}.yaml")
        told[name] = locate(cfg._target_).needs_images
    assert {name for name, needs in told.items() if needs is True} == NEED_IMAGES
    assert {name: needs for name, needs in told.items() if isinstance(needs, tuple)} == IN_A_PHASE


def test_terms_that_run_a_net_of_their_own_need_images():
    told = {
        path.stem: locate(OmegaConf.load(path)[path.stem]._target_).needs_images
        for path in (conf_dir() / "terms").glob("*.yaml")
    }
    assert {name for name, needs in told.items() if needs} == {"bi_tuning", "delta", "lwf", "vat"}


def test_who_writes_a_step_or_a_loss_of_his_own_says_so_anew():
    class Noisy(Finetune):
        def step(self, net, batch, phase, progress):
            batch["target"].x += 1
            yield from super().step(net, batch, phase, progress)

    class Renamed(Finetune):
        pass

    class Reading(Finetune):
        needs_images = False

        def step(self, net, batch, phase, progress):
            yield from super().step(net, batch, phase, progress)

    class Own(Term):
        def loss(self, update, net):
            return {}

    assert [kind.needs_images for kind in (Noisy, Renamed, Reading, Own)] == [
        True,
        False,
        False,
        True,
    ]
    assert Method.needs_images
    assert Term.needs_images


@pytest.mark.parametrize("name", sorted(set(METHODS) - NEED_IMAGES - WITHOUT_STEPS))
def test_a_frozen_first_stage_gives_every_method_the_same_losses(name, tmp_path, always, seen):
    """Two steps with kept activations and two with images, from the same weights."""
    states = []
    for features in ("auto", "off"):
        session = session_of(name, tmp_path / features)
        session.cfg["trainer"]["features"] = features
        session.data.augment.clear()
        session.phases = [
            replace(phase, frozen=(*phase.frozen, "backbone.conv1")) for phase in session.phases
        ]
        seen.clear()
        session.trainer(evaluates=False).fit()
        states.append((session.net.state_dict(), rows(session), set(seen)))
    (kept, kept_rows, shapes), (plain, plain_rows, other) = states
    assert shapes - other  # of activations
    for key, value in kept.items():
        torch.testing.assert_close(value, plain[key], rtol=1e-5, atol=1e-5)
    assert_rows_alike(kept_rows, plain_rows)


# ---- whole runs ---------------------------------------------------------------------------------

PROBE = (
    "method=source_only",
    "transfer.freeze=[backbone]",
    "data.augment.source=null",
    "trainer.batch_size=32",
    "trainer.steps=40",
    "trainer.eval_every=10",
)


def trained(folder, *options: str):
    """A session after its training."""
    session = small.session(folder, *PROBE, *options)
    session.trainer().fit()
    return session


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("method=dann", "data.augment.target=null"),
        ("method=dann", "data.augment.target=null", "terms=[mcc]"),
        (
            "method=shot",
            "data.augment.target=null",
            "transfer.freeze=[backbone.conv1]",
            "method.hypothesis=classifier.out",
        ),
        (
            "method=lp_ft",
            "data.augment.target=null",
            "transfer.freeze=[]",
            "target_labels=3",
            "phases.target.steps=3",
        ),
        ("data=digits_episodes", "method=protonet", "transfer.freeze=[backbone.conv1]"),
        ("data=digits_episodes", "method=baseline", "transfer.freeze=[backbone]"),
    ],
    ids=["probe", "dann", "mcc", "shot", "lp_ft", "protonet", "baseline"],
)
def test_a_run_has_the_figures_that_it_has_with_images(options, tmp_path, seen):
    if "data=digits_episodes" in options:
        options = (*options, "data.val_episodes=20", "data.test_episodes=20")
    kept = trained(tmp_path / "kept", *options)
    shapes = set(seen)
    seen.clear()
    plain = trained(tmp_path / "plain", *options, "trainer.features=off")
    assert shapes - set(seen)
    for key, value in kept.net.state_dict().items():
        torch.testing.assert_close(value, plain.net.state_dict()[key], rtol=1e-4, atol=1e-5)
    assert_rows_alike(rows(kept), rows(plain))
    assert chosen_step(kept) == chosen_step(plain)


def chosen_step(session) -> int | None:
    evaluations = [row for row in rows(session) if row["split"] == "eval"]
    row = session.choose(evaluations, session.cfg["select"]["name"])
    return None if row is None else row["step"]


def test_images_are_run_once(tmp_path, monkeypatch):
    count = 0
    forward = DannCNN.forward

    def counted(net, x):
        nonlocal count
        count += len(x)
        return forward(net, x)

    monkeypatch.setattr(DannCNN, "forward", counted)
    session = trained(tmp_path / "run")
    sets = ("source_train", "source_val", "target_val", "source_test", "target_test")
    images = sum(len(session.data.role(role)) for role in sets if role != "source_test")
    probes = 2 * 2 + 2  # of the trial, and of the shapes of the net
    assert images <= count <= images + probes + 10


def test_another_run_on_the_same_frozen_net_finds_its_activations(tmp_path, monkeypatch, seen):
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(activations, "WORTH_A_FILE", 0.0)
    passes = []
    computed = Activations._computed
    monkeypatch.setattr(
        Activations, "_computed", lambda kept, e: passes.append(len(e)) or computed(kept, e)
    )
    first = trained(tmp_path / "first", "trainer.features_cache_gb=1")
    count = len(passes)
    second = trained(tmp_path / "second", "trainer.features_cache_gb=1")
    assert count == len(passes) == 4  # source, both validation sets, the target's test
    assert rows(first) == rows(second)
    trained(tmp_path / "third", "trainer.features_cache_gb=1", "seed=1")  # other random weights
    assert len(passes) == 2 * count


def test_a_resumed_run_equals_one_that_went_straight_through(tmp_path):
    straight = trained(tmp_path / "straight")
    session = small.session(tmp_path / "broken", *PROBE)

    def stop(step):
        if step.global_step == 25:
            raise Crash

    with pytest.raises(Crash):
        session.trainer(Hooks(before_step=stop)).fit()
    assert session.net.entry is None  # images again, whatever happens
    assert session.data.activations is None
    resumed = reopened(tmp_path / "broken", *PROBE)
    resumed.trainer().fit()
    ours, theirs = straight.net.state_dict(), resumed.net.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert rows(straight) == rows(resumed)


def test_what_does_not_fit_is_said_and_run_in_every_step(tmp_path, caplog, seen):
    caplog.set_level(logging.INFO)
    session = trained(tmp_path / "run", "trainer.features_gb=1e-4")  # 80 floats each
    said = [
        record.getMessage() for record in caplog.records if record.name == "tlrun.engine.frozen"
    ]
    assert "computed once for each of" in said[0]
    assert "do not fit into trainer.features_gb=0.0001" in said[1]
    assert {(3, 28, 28), (80,)} <= set(seen)
    assert len(rows(session)) > 4


def test_augmented_streams_read_images_and_a_line_says_how_to_change_that(tmp_path, caplog, seen):
    caplog.set_level(logging.INFO)
    trained(tmp_path / "run", "data.augment.source={shift: 0.1}")
    assert "data.augment.source=null" in caplog.text
    assert {(3, 28, 28), (80,)} <= set(seen)  # what it is judged by is kept all the same


def test_a_stream_that_shows_no_image_twice_reads_images(tmp_path):
    session = small.session(tmp_path / "run", *PROBE, "trainer.steps=2")
    with frozen_kept(session, session.phases[0], 2):
        assert session.data.activations is None  # nothing is frozen before the phase has begun
    trainer = session.trainer(
        Hooks(before_step=lambda step: shapes.append(step.batch["source"].x.shape))
    )
    shapes = []
    trainer.fit()
    assert {tuple(shape[1:]) for shape in shapes} == {(3, 28, 28)}
