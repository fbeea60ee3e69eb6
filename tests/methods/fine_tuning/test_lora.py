"""LoRA: the adapters' formula, what is held still, starts and the finished run."""

import pytest
import torch

from helpers import small
from helpers.hooks import Crash
from helpers.sessions import shaken
from tlrun import load
from tlrun.config.compose import compose
from tlrun.engine.hooks import Hooks
from tlrun.experiment.start import create_run_folder, run_experiment
from tlrun.methods.base import Progress
from tlrun.methods.fine_tuning.lora import adapt
from tlrun.models.efficientnet_lite import SameConv2d

pytest.importorskip("peft")

SHORT = ("target_labels=3", "select=last", "phases.source.steps=3", "phases.target.steps=3")


def test_an_adapter_adds_its_scaled_product():
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(6, 5))
    weight, bias = plain[0].weight.detach().clone(), plain[0].bias.detach().clone()
    x = torch.randn(4, 6)
    adapt(plain, rank=2, alpha=6.0, dropout=0.0)
    torch.testing.assert_close(plain(x), x @ weight.T + bias)  # B = 0 at the start
    tensors = dict(plain.named_parameters())
    a, b = (tensors[f"0.lora_{letter}.default.weight"] for letter in "AB")
    with torch.no_grad():
        b.normal_()
    torch.testing.assert_close(plain(x), x @ (weight + 6.0 / 2 * b @ a).T + bias)
    assert {n for n, p in tensors.items() if p.requires_grad} == {
        "0.lora_A.default.weight",
        "0.lora_B.default.weight",
    }


def test_convolutions_with_a_class_of_their_own_are_adapted_too():
    torch.manual_seed(0)
    conv = SameConv2d(3, 4, (3, 3), stride=2)
    plain = torch.nn.Sequential(conv)
    weight = conv.weight.detach().clone()
    x = torch.randn(2, 3, 7, 8)
    before = plain(x)
    adapt(plain, rank=2, alpha=6.0, dropout=0.0)
    torch.testing.assert_close(plain(x), before)
    tensors = dict(plain.named_parameters())
    a, b = (tensors[f"0.lora_{letter}.default.weight"] for letter in "AB")
    with torch.no_grad():
        b.normal_()
        conv.weight.copy_(weight + 6.0 / 2 * torch.einsum("or,rihw->oihw", b[:, :, 0, 0], a))
    expected = conv(x)
    with torch.no_grad():
        conv.weight.copy_(weight)
    torch.testing.assert_close(plain(x), expected, rtol=1e-4, atol=1e-4)


def test_the_backbone_is_held_still_but_for_the_adapters(tmp_path):
    words = ("method=lora", "backbone.batch_norm=true", *SHORT)
    session = small.session(tmp_path / "run", *words)
    begun = {}

    def watch(step):
        if step.phase.name == "target":
            begun.setdefault("state", {k: v.clone() for k, v in session.net.state_dict().items()})

    session.trainer(Hooks(before_step=watch)).fit()
    moved = {
        key
        for key, value in session.net.state_dict().items()
        if not torch.equal(value, begun["state"][key])
    }
    assert any("lora_B" in key for key in moved)
    assert all("lora_" in key or key.startswith("parts.classifier") for key in moved)


def test_it_starts_from_another_run_and_can_be_loaded(tmp_path):
    quick = [*small.QUICK, "report=none"]
    first = ["method=source_only", *quick]
    run_experiment(create_run_folder(compose(first), tmp_path / "first", first))
    words = ["method=lora", *quick, *SHORT[:2], f"init={tmp_path}/first"]
    run_dir = create_run_folder(compose(words), tmp_path / "run", words)
    run_experiment(run_dir)
    fates = run_dir.read_json(run_dir.transfer, list)
    assert {fate["origin"] for fate in fates} == {"carried"}
    x = torch.zeros(2, 3, 28, 28, dtype=torch.uint8)
    ours, theirs = load(run_dir.path), load(tmp_path / "first")
    stage = "net.parts.backbone.conv1.conv"
    held, start_of_it = ours.state_dict(), theirs.state_dict()
    assert torch.equal(held[f"{stage}.base_layer.weight"], start_of_it[f"{stage}.weight"])
    assert ours(x).shape == (2, 10)


def test_the_loss_of_mixed_images_is_that_of_their_shares(tmp_path):
    words = ("method=lora", "data.augment.target.mixup=0.4", "backbone.dropout=0", *SHORT)
    session = small.session(tmp_path / "run", *words)
    caught = []

    def stop(step):
        if step.phase.name == "target":
            caught.append(step.batch)
            raise Crash

    with pytest.raises(Crash):
        session.trainer(Hooks(before_step=stop)).fit()
    shaken(session)  # of fresh adapters the product is 0
    (batch,) = caught
    shares, index = batch["target"].y, batch["target"].index
    labels = session.data.domains["target"].train.labels[index]
    assert shares.dtype == torch.float32
    assert (shares.max(1).values < 0.999).any()
    for share, own, other in zip(shares, labels, labels.roll(1), strict=True):
        assert share.nonzero().flatten().tolist() == sorted({int(own), int(other)})
        assert share.sum() == pytest.approx(1)
    update = next(session.method.step(session.net, batch, session.phases[-1], Progress(0, 10)))
    logits = update.outputs["target"].logits
    want = -sum(row @ (z - z.logsumexp(0)) for row, z in zip(shares, logits, strict=True))
    torch.testing.assert_close(update.losses["classification"], want / len(shares))
    update.losses["classification"].backward()
    moved = {n for n, p in session.net.named_parameters() if p.grad is not None and p.grad.any()}
    assert any("lora_A" in name for name in moved)
    assert all("lora_" in name or name.startswith("parts.classifier") for name in moved)
