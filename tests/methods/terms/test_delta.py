"""DELTA: its attention, its loss, the teacher and the hooks."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers import sessions, small
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.pipeline.streams import batches
from tlrun.errors import ConfigError
from tlrun.methods.base import DomainOutput, Update
from tlrun.methods.terms.delta import Delta
from tlrun.methods.terms.feature_maps import attention, fitted, layers
from tlrun.models.backbones import MLP
from tlrun.models.net import Net
from tlrun.models.prefix import entry_before

TERM = "terms=[delta]"


def maps(net, x):
    """Outputs of the convolutions of both stages, by explicit calls."""
    first = net.backbone.conv1.conv(x)
    between = net.backbone.conv1(x)
    return {"backbone.conv1.conv": first, "backbone.conv2.conv": net.backbone.conv2.conv(between)}


def test_the_loss_is_the_weighted_mean_square_over_the_batch(tmp_path):
    session, batch = sessions.paused(tmp_path / "run", TERM, "terms.delta.alpha=0.3")
    teacher = sessions.copy_of(session)
    sessions.shaken(session)
    student, x = sessions.copy_of(session).train(), batch["target"].x
    expected = 0.0
    weights = session.terms["delta"].weights
    for name, now in maps(student, x).items():
        square = (now - maps(teacher, x)[name]).square().sum((2, 3))  # (B, C)
        channels, positions = now.shape[1], now.shape[2] * now.shape[3]
        share = (square.mean(0) * weights[name]).sum().detach()
        expected += float(channels * share / positions) / 2
    update = sessions.update_of(session, batch)
    assert float(update.losses["delta"].detach()) == pytest.approx(0.3 * expected, rel=1e-4)


def test_attention_is_the_softmax_of_the_rise_in_loss(tmp_path):
    session, batch = sessions.paused(tmp_path / "run")
    net, x, y = sessions.copy_of(session), batch["target"].x, batch["target"].y
    conv = net.backbone.conv1.conv
    with torch.no_grad():
        ours = attention(conv, lambda: cross_entropy(net(x).logits, y))
        before, rise = cross_entropy(net(x).logits, y), []
        for j in range(conv.out_channels):  # zeroing a filter = zeroing its weights and its bias
            kept = conv.weight[j].clone(), conv.bias[j].clone()
            conv.weight[j], conv.bias[j] = 0, 0
            rise.append(cross_entropy(net(x).logits, y) - before)
            conv.weight[j], conv.bias[j] = kept
    assert torch.allclose(ours, torch.stack(rise).softmax(0), atol=1e-6)
    assert float(ours.sum()) == pytest.approx(1)
    assert float(ours.std()) > 0


def test_attention_from_the_layers_stage_on_is_that_of_whole_passes(tmp_path):
    session, _ = sessions.paused(tmp_path / "run", TERM)
    term = session.terms["delta"]
    assert entry_before(term.teacher.of(session.net), "backbone.conv2.conv") is not None
    data, net = session.data, term.teacher.of(session.net)
    some = data.role("target_train")
    some = some.subset(permutation(len(some), "delta")[: term.images])
    x, y, _ = next(batches(some, data.preprocess, torch.device("cpu"), term.images))
    with torch.no_grad():
        for name, weights in term.weights.items():
            whole = attention(net.module_of(name), lambda: cross_entropy(net(x).logits, y))
            torch.testing.assert_close(weights, whole, rtol=1e-4, atol=1e-6)


def test_gradients_reach_the_backbone_and_new_weights_decay(tmp_path):
    options = (TERM, "terms.delta.beta=0.4", "transfer.reinit=[classifier.out]")
    session, batch = sessions.paused(tmp_path / "run", *options)
    sessions.shaken(session)
    ours = sessions.gradients(session, batch)
    session.net.zero_grad()
    update = sessions.update_of(session, batch)
    out = session.net["classifier"].out.weight
    (sum(update.losses.values()) + 0.2 * out.square().sum()).backward()
    assert torch.allclose(ours["parts.classifier.out.weight"], out.grad, atol=1e-6)
    alone = torch.autograd.grad(
        sessions.update_of(session, batch).losses["delta"],
        session.net.backbone.conv1.conv.weight,
    )[0]
    assert float(alone.abs().max()) > 0


def test_a_heavy_weight_keeps_the_feature_maps(tmp_path):
    def change(alpha):
        session, batch = sessions.paused(
            tmp_path / f"{alpha}", TERM, f"terms.delta.alpha={alpha}", "trainer.steps=30", at=32
        )
        update = sessions.update_of(session, batch)
        return float(update.losses["delta"].detach()) / alpha

    assert change(10) < 0.5 * change(1e-6)


def test_evaluations_and_the_source_phase_leave_nothing_behind(tmp_path):
    session, batch = sessions.paused(tmp_path / "run", TERM)
    assert session.terms["delta"].student.take() == {}
    with torch.no_grad():
        session.net(batch["target"].x)
    assert session.terms["delta"].student.take() == {}


@pytest.mark.parametrize("attend", [True, False])
def test_kill_and_resume(attend, tmp_path):
    sessions.resumed_equals_straight(
        tmp_path, TERM, f"terms.delta.attention={attend}", "backbone.dropout=0.25"
    )


def test_a_new_head_is_replaced_by_one_fitted_to_the_features():
    features, y = torch.randn(60, 5), torch.arange(60) % 3
    features[:, :3] += 4 * torch.eye(3)[y]
    head = fitted(features, y, decay=0.1)
    assert float((head(features).argmax(1) == y).float().mean()) > 0.95
    weight = head.weight.clone().requires_grad_()
    loss = cross_entropy(features @ weight.T + head.bias, y) + 0.05 * weight.square().sum()
    (gradient,) = torch.autograd.grad(loss, weight)
    assert float(gradient.abs().max()) < 1e-3  # the minimum


def test_layers_are_the_last_of_each_stage_of_the_backbone():
    assert layers(small.net(), ["backbone"]) == ["backbone.conv1.conv", "backbone.conv2.conv"]
    with pytest.raises(ConfigError, match="did you mean"):
        layers(small.net(), ["backbone.conv9"])
    net = small.net()
    net.add("classifier", net.new_head(4))
    with pytest.raises(ConfigError, match="does not lie in the backbone"):
        layers(net, ["classifier"])


def test_linear_layers_have_channels_without_positions():
    torch.manual_seed(0)
    net = Net(MLP((3, 16, 16), hidden=[7, 5], dropout=0.0), (3, 16, 16)).train()
    net.carried = ("backbone.fc1", "backbone.fc2")
    term = Delta(alpha=1.0, attention=False)
    term.attach(net)
    term.start(net, None)
    x = small.batch("target")["target"].x
    with torch.no_grad():
        net.backbone.fc2.linear.weight += 0.1
    net(x)
    value = term.loss(Update({}, outputs={"target": DomainOutput(x)}), net)["delta"]
    teacher, now = term.teacher.of(net).backbone, net.backbone.fc1(x.flatten(1))
    # in training the student's own batch norm comes first: fc1 is the same before it
    away = net.backbone.fc2.linear(now) - teacher.fc2.linear(teacher.fc1(x.flatten(1)))
    assert value.item() == pytest.approx(away.square().mean(0).sum().item() / 2, rel=1e-4)
