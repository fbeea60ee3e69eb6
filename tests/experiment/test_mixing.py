"""Runs on mixed images: who takes them, who refuses, and that they resume."""

import pytest
import torch

from helpers import small
from helpers.sessions import resumed_equals_straight
from tlrun.errors import ConfigError
from tlrun.losses.classification import classification_loss

MIXUP = "data.augment.source.mixup=0.4"


def test_the_loss_of_soft_labels():
    logits = torch.randn(5, 3, dtype=torch.bfloat16)
    shares = torch.rand(5, 3).softmax(1)
    smooth = 0.9 * shares + 0.1 / 3
    want = -(smooth * logits.float().log_softmax(1)).sum(1).mean()
    got = classification_loss(logits, shares, 0.1)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    "method", ["source_only", "dann", "cdan", "dann_alternating", "dan", "shot", "finetune"]
)
def test_methods_that_learn_from_mixed_images(tmp_path, method):
    terms = "terms=[l2_sp]" if method == "finetune" else "terms={}"
    session = small.session(tmp_path / "run", f"method={method}", MIXUP, terms)
    session.trainer().fit()
    rows = [row for row in session.run_dir.read_metrics() if "loss/classification" in row]
    assert rows
    assert all(torch.isfinite(torch.tensor(row["loss/classification"])) for row in rows)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["method=mcd", MIXUP], "method=mcd takes one class"),
        (["method=pada", MIXUP], "method=pada takes one class"),
        (["method=dann", "data.augment.target.cutmix=1"], "these have none"),
        (
            ["method=finetune", "data.augment.target.mixup=1", "terms=[co_tuning]"],
            r"terms=\[co_tuning\] takes one class",
        ),
        (["method=source_only", "data.augment.source.mixup=-1"], "mixup"),
    ],
)
def test_who_refuses_says_so(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        small.session(tmp_path / "run", *options)


def test_a_resumed_run_equals_one_that_went_straight_through(tmp_path):
    resumed_equals_straight(
        tmp_path, "data.augment.target={mixup: 0.5, cutmix: 1}", "terms=[l2_sp]"
    )
