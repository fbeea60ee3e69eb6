"""Methods for targets with other classes or a few labels: MME, PADA, OSBP."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers import small, updates
from tlrun.errors import ConfigError
from tlrun.losses.adversarial import domain_loss
from tlrun.losses.entropy import entropy_loss
from tlrun.methods.base import Phase, Progress
from tlrun.methods.label_spaces.mme import MME
from tlrun.methods.label_spaces.osbp import OSBP
from tlrun.methods.label_spaces.pada import PADA

MIDDLE = Progress(50, 100)


def three():
    batch = small.batch("source", "target", "target_unlabelled")
    batch["target"].y = torch.arange(8) % small.CLASSES
    return batch


def test_mme_plays_for_entropy_in_the_head_and_against_it_in_the_features():
    method = MME(trade_off=0.3)
    net = small.built(method, small.net(dropout=0.0))
    batch, reference = three(), copy.deepcopy(net)
    (update,) = method.step(net, batch, Phase(), MIDDLE)
    sum(update.losses.values()).backward()
    logits = {}
    for name in batch:
        domain = "source" if name == "source" else "target"
        logits[name] = reference(batch[name].x, domain).logits
    labels = 0.5 * sum(cross_entropy(logits[n], batch[n].y) for n in ("source", "target"))
    p = logits["target_unlabelled"].softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    expected = {
        "backbone": updates.gradients(labels + 0.3 * entropy, reference["backbone"]),
        "classifier": updates.gradients(labels - 0.3 * entropy, reference["classifier"]),
    }
    updates.assert_gradients(net, expected)


def test_mme_needs_some_target_labels(tmp_path):
    with pytest.raises(ConfigError, match="target_labels=3"):
        small.session(tmp_path / "run", "method=mme", "target_labels=all")
    session = small.session(tmp_path / "few", "method=mme", "target_labels=2")
    assert len(session.data.stream_set("target")) == 20
    unlabelled = session.data.stream_set("target_unlabelled")
    assert unlabelled.labels is None
    assert len(unlabelled) > 500
    session.trainer().fit()


def test_pada_weighs_images_of_the_source_by_their_class():
    method = PADA(domain_dropout=0.0)
    net = small.built(method, small.net(dropout=0.0))
    method.weights = torch.tensor([1.0, 0.5, 0.1, 0.0]).clamp_min(1e-3)
    batch, reference = small.batch(), copy.deepcopy(net)
    (update,) = method.step(net, batch, Phase(), MIDDLE)
    source = reference(batch["source"].x)
    target = reference(batch["target"].x, "target")
    weight = method.weights[batch["source"].y]
    each = cross_entropy(source.logits, batch["source"].y, reduction="none")
    expected = (weight * each).sum() / weight.sum()
    assert update.losses["classification"].item() == pytest.approx(expected.item(), rel=1e-5)
    logits = reference["domain_head"](torch.cat([source.features, target.features]))
    expected = domain_loss(logits[:8], logits[8:], weight)
    assert update.losses["domain"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_pada_finds_the_mean_prediction_on_the_target(tmp_path):
    words = ("data.label_spaces=partial", "data.target_classes=[3, 5]", "method.reweight_every=3")
    session = small.session(tmp_path / "run", "method=pada", *words, "backbone.dropout=0")
    assert session.data.classes == tuple("0123456789")
    assert set(session.data.role("target_test").labels.tolist()) == {3, 5}
    session.trainer().fit()
    method, net, data = session.method, session.net, session.data
    method.start(session.phases[0], net, data)
    method.refresh(session.phases[0], net, data, Progress(0, 6))
    assert torch.equal(method.weights, torch.ones(10))
    method.refresh(session.phases[0], net, data, Progress(3, 6))
    net.eval()
    train = data.stream_set("target")
    with torch.no_grad():
        x = data.preprocess(train.read(torch.arange(len(train))))
        p = net(x, "target").logits.softmax(1).mean(0)
    assert torch.allclose(method.weights, (p / p.max()).clamp_min(1e-3), atol=1e-4)


def osbp_step(method, net):
    """The gradients of a step are those of `net` after it -> the net of before, and the two losses
    of t = 0.4 by hand on it: of the source's labels, and of the target's boundary."""
    batch, reference = small.batch(), copy.deepcopy(net)
    (update,) = method.step(net, batch, Phase(), MIDDLE)
    sum(update.losses.values()).backward()
    labels = cross_entropy(reference(batch["source"].x).logits, batch["source"].y)
    unknown = reference(batch["target"].x, "target").logits.softmax(1)[:, -1]
    return reference, labels, -(0.4 * unknown.log() + 0.6 * (1 - unknown).log()).mean()


def test_osbp_reverses_the_boundary_for_the_features():
    method = OSBP(boundary=0.4, trade_off=0.7)
    net = small.built(method, small.net(dropout=0.0))
    reference, labels, boundary = osbp_step(method, net)
    expected = {
        "backbone": updates.gradients(labels - 0.7 * boundary, reference["backbone"]),
        "classifier": updates.gradients(labels + 0.7 * boundary, reference["classifier"]),
    }
    updates.assert_gradients(net, expected)


def test_osbp_reverses_behind_a_stage_of_the_classifier_that_belongs_to_the_features():
    """Its layers up to `attach` move with f, those behind it with h; λ acts on f alone."""
    method = OSBP(boundary=0.4, attach="classifier.fc1", lambda_schedule="linear")
    net = small.built(method, small.net({"hidden": [8], "batch_norm": True}, dropout=0.0))
    reference, labels, boundary = osbp_step(method, net)
    turned, straight = labels - 0.5 * boundary, labels + boundary
    updates.assert_gradients(net, {"backbone": updates.gradients(turned, reference["backbone"])})
    for stage, objective in (("fc1", turned), ("out", straight)):
        expected = updates.gradients(objective, reference.module_of(f"classifier.{stage}"))
        ours = [p.grad for p in net.module_of(f"classifier.{stage}").parameters()]
        for mine, wanted in zip(ours, expected, strict=True):
            assert torch.allclose(mine, wanted, atol=1e-5), stage


@pytest.mark.parametrize("attach", ["backbone.conv2", "classifier.out", "classifier.fc9"])
def test_osbp_cannot_reverse_where_its_classifier_does_not_begin(attach):
    with pytest.raises(ConfigError, match=r"method\.attach=.*classifier\.fc1"):
        small.built(OSBP(attach=attach), small.net())


@pytest.mark.parametrize("attach", ["features", "classifier.fc1"])
def test_osbp_under_joint_batch_norm_has_one_batch_in_the_classifier_too(attach):
    method = OSBP(attach=attach)
    method.batch_norm = "joint"
    net = small.built(method, small.net({"hidden": [8], "batch_norm": True}, dropout=0.0))
    batch, reference = small.batch(), copy.deepcopy(net)
    (update,) = method.step(net, batch, Phase(), MIDDLE)
    logits = reference(torch.cat([batch["source"].x, batch["target"].x])).logits
    assert torch.allclose(update.outputs["source"].logits, logits[:8], atol=1e-5)
    assert torch.allclose(update.outputs["target"].logits, logits[8:], atol=1e-5)
    against = logits[8:, -1] - logits[8:, :-1].logsumexp(1)
    expected = -0.5 * (against.sigmoid().log() + (-against).sigmoid().log()).mean()
    assert update.losses["boundary"].item() == pytest.approx(expected.item(), rel=1e-5)
    for name, buffer in reference.named_buffers():  # one pass has moved the running statistics
        assert torch.allclose(net.get_buffer(name), buffer), name


@pytest.mark.parametrize("norm", [False, True])
def test_a_term_beside_osbp_is_no_part_of_its_game(norm):
    """The logits that it is shown reach the features with the sign they have."""
    method = OSBP(trade_off=0.0)
    net = small.built(method, small.net({"hidden": [8], "batch_norm": norm}, dropout=0.0))
    batch, reference = small.batch(), copy.deepcopy(net)
    (update,) = method.step(net, batch, Phase(), MIDDLE)
    ours = updates.gradients(entropy_loss(update.outputs["target"].logits), net["backbone"])
    entropy = entropy_loss(reference(batch["target"].x, "target").logits)
    for mine, expected in zip(ours, updates.gradients(entropy, reference["backbone"]), strict=True):
        assert torch.allclose(mine, expected, atol=1e-6)
    reference(batch["source"].x)  # one pass each has moved the running statistics
    for name, buffer in reference.named_buffers():
        assert torch.allclose(net.get_buffer(name), buffer), name


def test_a_term_beside_mme_looks_at_the_images_without_labels():
    method = MME()
    net = small.built(method, small.net(dropout=0.0))
    batch, reference = three(), copy.deepcopy(net)
    (update,) = method.step(net, batch, Phase(), MIDDLE)
    assert torch.equal(update.outputs["source"].x, batch["source"].x)
    shown = update.outputs["target"]
    assert torch.equal(shown.x, batch["target_unlabelled"].x)
    ours = updates.gradients(entropy_loss(shown.logits), net["backbone"])
    entropy = entropy_loss(reference(batch["target_unlabelled"].x, "target").logits)
    for mine, expected in zip(ours, updates.gradients(entropy, reference["backbone"]), strict=True):
        assert torch.allclose(mine, expected, atol=1e-6)


def test_pada_leaves_frozen_stages_still_when_it_looks_at_the_target(tmp_path):
    words = ("method=pada", "method.reweight_every=2", "phases.train.frozen=[backbone.conv1]")
    session = small.session(tmp_path / "run", *words, "backbone.batch_norm=true")
    session.trainer().fit()
    stage = session.net.module_of("backbone.conv1")
    counts = [b for n, b in stage.named_buffers() if n.endswith("num_batches_tracked")]
    assert counts
    assert all(int(count) == 0 for count in counts)


def test_osbp_needs_an_open_set(tmp_path):
    with pytest.raises(ConfigError, match="label_spaces=open"):
        small.session(tmp_path / "run", "method=osbp")
    words = ("data.label_spaces=open", "data.source_classes=[0, 1, 2]")
    session = small.session(tmp_path / "open", "method=osbp", *words)
    assert session.data.classes == ("0", "1", "2", "unknown")
    labels = session.data.role("target_test").labels
    assert set(labels.tolist()) == {0, 1, 2, 3}
    assert set(session.data.role("source_test").labels.tolist()) == {0, 1, 2}
    session.trainer().fit()


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        (MME, {"scale": 0.0}, "method.scale"),
        (MME, {"trade_off": -1.0}, "method.trade_off"),
        (PADA, {"reweight_every": 0}, "method.reweight_every"),
        (PADA, {"trade_off": -1.0}, "method.trade_off"),
        (OSBP, {"boundary": 1.0}, "above 0 to below 1"),
        (OSBP, {"gamma": -1.0}, "method.gamma"),
        (OSBP, {"lambda_schedule": "ramp"}, "method.lambda_schedule"),
    ],
)
def test_bad_arguments_are_refused(method, arguments, words):
    with pytest.raises(ConfigError, match=words):
        small.configured(method, **arguments)
