"""Every method, by its config alone: arguments, generator rules, two steps on the bundled pair."""

import inspect
from pathlib import Path

import pytest
import small
import torch
from omegaconf import OmegaConf

from tlrun.config import build, conf_dir, locate, plain
from tlrun.methods.method import Progress

METHODS = sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))
PAIRS = ["digits_digitsm"]


@pytest.mark.parametrize("name", METHODS)
def test_the_config_lists_every_argument_with_its_default(name):
    cfg = plain(OmegaConf.load(conf_dir() / "method" / f"{name}.yaml"))
    parameters = inspect.signature(locate(cfg.pop("_target_"))).parameters
    assert cfg == {key: parameter.default for key, parameter in parameters.items()}


@pytest.mark.parametrize("name", METHODS)
def test_the_file_cites_its_source_and_stays_short(name):
    cfg = OmegaConf.load(conf_dir() / "method" / f"{name}.yaml")
    path = Path(inspect.getfile(locate(cfg._target_)))
    assert len(path.read_text().splitlines()) < 120
    assert inspect.getmodule(locate(cfg._target_)).__doc__


@pytest.mark.parametrize("name", METHODS)
def test_generators_leave_no_context_open_at_a_yield(name):
    """A `no_grad` or autocast that is open at a yield would hold in the engine too."""
    method = build(OmegaConf.load(conf_dir() / "method" / f"{name}.yaml"))
    net = small.built(method, small.net())
    streams = [name for phase in method.phases(None) for name in phase.streams]
    batch = small.batch(*streams)
    for drawn in batch.values():
        drawn.y = torch.zeros(len(drawn.index), dtype=torch.int64) if drawn.y is None else drawn.y
    for step in range(4):
        for update in method.step(net, batch, Progress(step, 4)):
            assert torch.is_grad_enabled()
            assert not torch.is_autocast_enabled("cpu")
            assert all(loss.ndim == 0 and loss.requires_grad for loss in update.losses.values())
            assert set(update.parts or ()) <= set(net.parts)
            sum(update.losses.values()).backward()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("pair", PAIRS)
def test_two_steps_on_every_bundled_pair(name, pair, tmp_path):
    session = small.session(tmp_path / "run", f"method={name}", f"data={pair}", "trainer.steps=2")
    loop = session.loop()
    before = {}
    build_parts = session.method.build

    def remember(*arguments):
        build_parts(*arguments)
        before.update({k: v.clone() for k, v in session.net.state_dict().items()})

    session.method.build = remember
    loop.fit()
    assert loop.global_step == 2
    assert loop.counters.updates >= 2
    assert any(
        not torch.equal(value, before[key])
        for key, value in session.net.state_dict().items()
        if key in before
    )
    rows = session.run_dir.read_metrics()
    assert {"train", "eval"} <= {row["split"] for row in rows}
    scores = session.method.predict(session.net.eval(), torch.randn(3, 3, 28, 28)).scores
    assert scores.shape == (3, 10)
