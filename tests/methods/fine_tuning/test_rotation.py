"""Rotation prediction: its images and loss, what it must not read, and what is learned by it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers import small
from tlrun.data.pipeline.streams import Batch
from tlrun.errors import ConfigError
from tlrun.methods.base import Phase, Progress
from tlrun.methods.fine_tuning.rotation import Rotation, rotated
from tlrun.methods.query import Query

TURNS = ("method=rotation", "target_labels=2", "backbone.dropout=0")


def test_every_image_is_seen_in_all_four_rotations():
    x = torch.randn(3, 2, 5, 5)
    turned, k = rotated(x)
    expected = [np.rot90(image, turns, (1, 2)) for turns in range(4) for image in x.numpy()]
    assert np.array_equal(turned.numpy(), np.stack(expected))
    assert k.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_the_loss_is_the_cross_entropy_of_the_turns_and_reads_no_label():
    method, net = Rotation(), small.net(dropout=0.0, batch_norm=False)
    data = SimpleNamespace(num_classes=4, classes=tuple("abcd"), source_classes=tuple("abcd"))
    source = Phase("source", ("source",))
    method.build(source, net, data)
    assert "classifier" not in net.parts
    x = small.batch("source")["source"].x
    net.requires_grad_(False)
    (update,) = method.step(
        net, {"source": Batch(x, None, torch.arange(8))}, source, Progress(0, 1)
    )
    losses = [
        -net(x.rot90(k, (2, 3)), head=Rotation.pretext_head).logits.log_softmax(1)[:, k]
        for k in range(4)
    ]
    assert float(update.losses["rotation"]) == pytest.approx(
        float(torch.cat(losses).mean()), rel=1e-5
    )


def test_the_turns_are_learned_and_the_backbone_is_carried_into_a_probe(tmp_path):
    steps = ("phases.source.steps=60", "backbone.width=0.3", "optimizer.lr=0.003")
    session = small.session(tmp_path / "run", *TURNS, *steps, "transfer.freeze=[backbone]")
    session.trainer().fit()
    rows = session.run_dir.read_metrics()
    learned = [r["metric/rotation_accuracy"] for r in rows if "metric/rotation_accuracy" in r]
    assert learned[-1] > 0.5 > learned[0]  # 0.25 is chance
    fates = {f["stage"]: f for f in session.run_dir.read_json(session.run_dir.transfer, list)}
    assert fates["backbone.conv2"]["origin"] == "carried"
    assert fates["backbone.conv2"]["frozen"]
    assert fates["classifier.out"]["origin"] == "new"
    phases = {row["phase"]: row for row in rows if row["split"] == "eval"}
    assert "source_val/accuracy" not in phases["source"]  # no head for classes yet
    assert "source_val/accuracy" in phases["target"]


def test_a_source_of_other_classes_is_not_judged_by_the_targets_head():
    method, net = Rotation(), small.net()
    data = SimpleNamespace(num_classes=4, classes=tuple("abcd"), source_classes=tuple("wxyz"))
    for phase in (Phase("source", ("source",)), Phase("target", ("target",))):
        method.build(phase, net, data)
    x = small.batch("target")["target"].x
    assert method.predict(net, x, Query(domain="source")).scores is None
    assert method.predict(net, x, Query(domain="target")).scores.shape == (8, 4)


def test_oblong_images_are_refused():
    for shape in ((3, 8, 9), (12,)):
        with pytest.raises(ConfigError, match="square images"):
            Rotation().phases(SimpleNamespace(input_shape=shape))
