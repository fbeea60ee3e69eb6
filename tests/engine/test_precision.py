"""What `auto` means, and that bf16 costs no accuracy."""

import os

import pytest
import torch

from helpers import small
from tlrun.engine import precision
from tlrun.engine.precision import autocast, resolve_device, resolve_precision
from tlrun.errors import ConfigError

CPU = torch.device("cpu")


def test_auto_on_a_cpu_follows_the_processor(monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_fast_bf16", lambda: True)
    assert resolve_precision("auto", CPU) == "bf16"
    monkeypatch.setattr(precision, "cpu_has_fast_bf16", lambda: False)
    assert resolve_precision("auto", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(ConfigError, match="needs a GPU"):
        resolve_precision("fp16", CPU)


def test_a_device_that_is_not_here_is_refused():
    absent = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(ConfigError, match=f"device={absent} is not available here"):
        resolve_device(absent)
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")


def test_autocast_changes_what_a_convolution_returns():
    layer, x = torch.nn.Conv2d(1, 1, 3), torch.randn(1, 1, 5, 5)
    with autocast("bf16", CPU):
        assert layer(x).dtype == torch.bfloat16
    with autocast("fp32", CPU):
        assert layer(x).dtype == torch.float32


@pytest.mark.skipif("TLRUN_DATA" not in os.environ, reason="needs MNIST: set TLRUN_DATA")
def test_bf16_reaches_the_accuracy_of_fp32_on_mnist(tmp_path):
    """The same 300 steps in both: source test accuracy within half a point."""
    found = {}
    for kind in ("fp32", "bf16"):
        session = small.session(
            tmp_path / kind,
            *("method=source_only", "data=mnist_usps", "trainer.steps=300", "backbone.width=0.5"),
            *("trainer.batch_size=64", "trainer.eval_every=300", f"trainer.precision={kind}"),
            "evaluate.target_test=false",
        )
        session.trainer().fit()
        session.net.eval()
        with torch.no_grad(), autocast(kind, CPU):
            found[kind] = session.evaluator.test(session.net)[0]["source_test/accuracy"]
    assert found["fp32"] > 0.96
    assert abs(found["fp32"] - found["bf16"]) <= 0.005
