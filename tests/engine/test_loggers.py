"""Optional loggers get the rows of metrics.jsonl."""

import sys

import pytest
import small

from tlrun.engine.loggers import make_logger
from tlrun.errors import ConfigError


def test_tensorboard_gets_every_figure(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tlrun[tensorboard]"
    )
    session = small.session(tmp_path / "run", "logger=tensorboard")
    session.loop().fit()
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("train/loss/classification")] == [2, 4, 6]
    assert [e.step for e in events.Scalars("eval/source_val/accuracy")] == [0, 3, 6]


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install tensorboard"):
        make_logger({"name": "tensorboard"}, None)
