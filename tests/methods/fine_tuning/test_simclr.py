"""SimCLR: its loss against a loop, its views, what it must not read, and the start it gives."""

from types import SimpleNamespace

import pytest
import torch

from helpers import small
from tlrun.config.build import build
from tlrun.errors import ConfigError
from tlrun.losses.contrastive import nt_xent
from tlrun.methods.fine_tuning.simclr import SimCLR, view

START = ("method=simclr", "target_labels=2", "backbone.dropout=0")


def test_nt_xent_equals_a_loop_over_the_pairs():
    a, b = torch.randn(5, 7), torch.randn(5, 7)
    z, total = torch.cat([a, b]).double(), 0.0
    for i in range(10):
        j = (i + 5) % 10
        similar = [float(torch.cosine_similarity(z[i], z[k], 0)) / 0.3 for k in range(10)]
        others = torch.tensor([s for k, s in enumerate(similar) if k != i], dtype=torch.float64)
        total += float(others.logsumexp(0)) - similar[j]
    assert float(nt_xent(a, b, 0.3)) == pytest.approx(total / 10, rel=1e-5)
    assert float(nt_xent(a, a, 0.3)) < float(nt_xent(a, b, 0.3))


def test_views_keep_the_shape_are_drawn_per_image_and_by_the_seed():
    x = torch.randn(6, 3, 12, 12)
    assert torch.allclose(view(x, 1.0, 0.0).mean(), x.mean(), atol=0.2)
    torch.manual_seed(0)
    first = view(x, 0.5, 0.4)
    torch.manual_seed(0)
    assert torch.equal(first, view(x, 0.5, 0.4))
    assert first.shape == x.shape
    same = x[:1].expand(6, -1, -1, -1)
    assert len({float(v.sum()) for v in view(same, 0.5, 0.4)}) == 6


def test_views_of_one_image_are_told_from_others_and_the_backbone_is_carried(tmp_path):
    steps = ("phases.source.steps=60", "backbone.width=0.3", "optimizer.lr=0.003")
    session = small.session(
        tmp_path / "run", *START, *steps, "transfer.freeze=[backbone]", "trainer.log_every=20"
    )
    session.trainer().fit()
    rows = [r for r in session.run_dir.read_metrics() if "loss/contrastive" in r]
    assert rows[-1]["loss/contrastive"] < rows[0]["loss/contrastive"] - 0.1
    fates = {f["stage"]: f for f in session.run_dir.read_json(session.run_dir.transfer, list)}
    assert fates["backbone.conv2"]["origin"] == "carried"
    assert fates["classifier.out"]["origin"] == "new"


def test_mistakes_are_explained():
    with pytest.raises(ConfigError, match=r"method\.crop=0: expected a number"):
        build({"_target_": "tlrun.methods.fine_tuning.simclr.SimCLR", "crop": 0}, "method")
    with pytest.raises(ConfigError, match="not ready features"):
        SimCLR().phases(SimpleNamespace(input_shape=(12,)))
