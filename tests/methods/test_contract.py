"""Every method, by its config alone: arguments, generator rules, two steps on the bundled pair."""

import inspect
import re

import pytest
import torch
from omegaconf import OmegaConf

from helpers.every_method import METHODS, session_of
from tlrun.config.build import locate, plain
from tlrun.config.packaged import conf_dir
from tlrun.data.problems.pair import UNLABELLED
from tlrun.methods.base import Progress


@pytest.mark.parametrize("name", METHODS)
def test_the_config_lists_every_argument_with_its_default(name):
    cfg = plain(OmegaConf.load(conf_dir() / "method" / f"{name}.yaml"))
    parameters = inspect.signature(locate(cfg.pop("_target_"))).parameters
    defaults = {key: parameter.default for key, parameter in parameters.items()}
    assert cfg == {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}


@pytest.mark.parametrize("name", METHODS)
def test_the_file_cites_its_source(name):
    cfg = OmegaConf.load(conf_dir() / "method" / f"{name}.yaml")
    page = inspect.getmodule(locate(cfg._target_)).__doc__
    assert re.search(r"\b(19|20)\d\d\b", page)  # the year of a paper


@pytest.mark.parametrize("name", METHODS)
def test_generators_leave_no_context_open_at_a_yield(name, tmp_path):
    """A `no_grad` or autocast that is open at a yield would hold in the engine too."""
    session = session_of(name, tmp_path / "run")
    net, trainer = session.net, session.trainer()
    for phase in session.phases:
        session.method.build(phase, net, session.data)
        session.finish_build(net)
        session.method.start(phase, net, session.data)
        if trainer.total_steps(phase) == 0:
            continue
        streams = trainer.open_streams(phase)
        for step in range(4):
            batch = {key: stream.batch(step) for key, stream in streams.items()}
            for update in session.method.step(net.train(), batch, phase, Progress(step, 4)):
                assert torch.is_grad_enabled()
                assert not torch.is_autocast_enabled("cpu")
                assert all(loss.ndim == 0 and loss.requires_grad for loss in update.losses.values())
                assert set(update.parts or ()) <= set(net.parts)
                sum(update.losses.values()).backward()


@pytest.mark.parametrize("name", METHODS)
def test_terms_are_shown_what_the_method_says(name, tmp_path):
    """By `shown`, a term that reads more is refused before training."""
    session = session_of(name, tmp_path / "run")
    net, method = session.net, session.method
    trainer = session.trainer()
    for phase in method.phases(session.data):
        method.build(phase, net, session.data)
        session.finish_build(net)
        method.start(phase, net, session.data)
        if not phase.terms or trainer.total_steps(phase) == 0:
            continue
        batch = {key: stream.batch(0) for key, stream in trainer.open_streams(phase).items()}
        for domain in batch.keys() - {UNLABELLED}:  # of the target some may have been asked for
            if batch[domain].y is None:
                batch[domain].y = torch.zeros_like(batch[domain].index)
        updates = list(method.step(net.train(), batch, phase, Progress(0, 4)))
        for update in [update for update in updates if update.main]:
            seen = {domain: filled(output) for domain, output in update.outputs.items()}
            assert seen == dict(method.shown(phase))


def filled(output):
    held = {"features": output.features, "logits": output.logits, "labels": output.y}
    return tuple(what for what, value in held.items() if value is not None)


@pytest.mark.parametrize("name", METHODS)
def test_two_steps_on_the_bundled_data_of_its_kind(name, tmp_path):
    session = session_of(name, tmp_path / "run")
    trainer = session.trainer()
    before = {}
    build_parts = session.method.build

    def remember(*arguments):
        build_parts(*arguments)
        before.update({k: v.clone() for k, v in session.net.state_dict().items()})

    session.method.build = remember
    trainer.fit()
    assert trainer.global_step == sum(trainer.total_steps(phase) for phase in session.phases)
    assert trainer.counters.updates >= trainer.global_step
    assert any(
        not torch.equal(value, before[key])
        for key, value in session.net.state_dict().items()
        if key in before
    )
    rows = session.run_dir.read_metrics()
    learned_by_steps = trainer.global_step > 0  # a formula needs none
    assert {"eval", *(["train"] if learned_by_steps else [])} <= {row["split"] for row in rows}
    figures, _ = session.evaluator.test(session.net.eval())
    assert figures
