"""What is frozen is computed once for each image, and changes no figure."""

from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf

from helpers.every_method import METHODS, session_of
from helpers.sessions import rows
from tlrun.config.build import locate
from tlrun.config.packaged import conf_dir
from tlrun.engine import frozen
from tlrun.methods.base import Method, Term
from tlrun.methods.fine_tuning.finetune import Finetune
from tlrun.models.net import Net

NEED_IMAGES = {
    "fixmatch_da",
    "self_ensembling",
    "vada",
    "dirt_t",
    "progressive",
    "maml",
    "fomaml",
    "anil",
}
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
    assert {name for name, needs in told.items() if needs} == {"delta", "lwf", "vat"}


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


@pytest.mark.parametrize("name", sorted(set(METHODS) - NEED_IMAGES))
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
