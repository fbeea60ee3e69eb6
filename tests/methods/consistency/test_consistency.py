"""Methods with a running average of the net: self-ensembling, FixMatch, VADA, DIRT-T."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import binary_cross_entropy, cross_entropy

from helpers import small, updates
from tlrun.errors import ConfigError
from tlrun.losses.virtual_adversarial import vat_loss
from tlrun.methods.base import Phase, Progress
from tlrun.methods.consistency.dirt_t import DirtT
from tlrun.methods.consistency.fixmatch_da import FixMatchDA
from tlrun.methods.consistency.self_ensembling import SelfEnsembling
from tlrun.methods.consistency.vada import VADA
from tlrun.methods.query import Query

FIRST = Progress(0, 10)
QUICK = [cls(ema=0.5, threshold=0.7) for cls in (FixMatchDA, SelfEnsembling)]


def views():
    """A batch whose target has a weak and a strong view."""
    batch = small.batch()
    x = batch["target"].x
    seen = {"weak": x + 0.1, "strong": -x, "clean": x - 0.1}
    batch["source"] = replace(batch["source"], views={"strong": -batch["source"].x})
    batch["target"] = replace(batch["target"], views=seen)
    return batch


def net_of(method):
    net = small.built(method, small.net(dropout=0.0))
    method.start(method.phases(None)[0], net, None)
    return net


def middle(net, x):
    """A threshold that half of the images pass."""
    other = copy.deepcopy(net)
    return float(other["teacher"].teach(x, "target").logits.softmax(1).amax(1).median())


def losses_of(method, net, batch, progress=FIRST):
    (update,) = method.step(net, batch, Phase(), progress)
    return update.losses


def test_self_ensembling_is_its_equation():
    method = SelfEnsembling(consistency=2.0, balance=0.0)
    net, batch = net_of(method), views()
    other = copy.deepcopy(net)
    method.threshold = threshold = middle(net, batch["target"].x)
    found = losses_of(method, net, batch)
    opinion = other["teacher"].teach(batch["target"].x, "target").logits.softmax(1)
    source = other(batch["source"].x).logits
    student = other(batch["target"].views["weak"], "target").logits.softmax(1)
    sure = (opinion.amax(1) >= threshold).float()
    expected = 2.0 * (sure * (student - opinion).square().mean(1)).mean()
    assert 0 < sure.sum() < 8
    assert found["consistency"].item() == pytest.approx(expected.item(), rel=1e-5)
    plain = cross_entropy(source, batch["source"].y)
    assert found["classification"].item() == pytest.approx(plain.item(), rel=1e-5)


def test_self_ensembling_weighs_the_balance_inside_the_consistency_as_the_authors_do():
    method = SelfEnsembling(consistency=2.0, balance=0.5, strong=True, view="clean")
    net, batch = net_of(method), views()
    other = copy.deepcopy(net)
    method.threshold = threshold = middle(net, batch["target"].views["clean"])
    found = losses_of(method, net, batch)
    opinion = other["teacher"].teach(batch["target"].views["clean"], "target").logits.softmax(1)
    student = other(batch["target"].views["strong"], "target").logits.softmax(1)
    sure = (opinion.amax(1) >= threshold).float()
    expected = 2.0 * (sure * (student - opinion).square().mean(1)).mean()
    assert found["consistency"].item() == pytest.approx(expected.item(), rel=1e-5)
    even = torch.full_like(student[0], 1 / student.shape[1])
    away = binary_cross_entropy(student.mean(0), even, reduction="sum")
    away = away - binary_cross_entropy(even, even, reduction="sum")
    expected = 2.0 * 0.5 * sure.mean() * away
    assert found["balance"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_fixmatch_is_its_equation():
    method = FixMatchDA(consistency=2.0, view="clean", source_strong=True)
    net, batch = net_of(method), views()
    other = copy.deepcopy(net)
    method.threshold = threshold = middle(net, batch["target"].views["clean"])
    found = losses_of(method, net, batch)
    opinion = other["teacher"].teach(batch["target"].views["clean"], "target").logits
    both = torch.cat([batch["source"].x, batch["source"].views["strong"]])
    source = other(both).logits
    student = other(batch["target"].views["strong"], "target").logits
    sure = (opinion.softmax(1).amax(1) >= threshold).float()
    each = cross_entropy(student, opinion.argmax(1), reduction="none")
    assert found["consistency"].item() == pytest.approx(2 * (sure * each).mean().item(), rel=1e-5)
    plain = cross_entropy(source, batch["source"].y.repeat(2))
    assert found["classification"].item() == pytest.approx(plain.item(), rel=1e-5)


def test_the_teacher_follows_once_a_step_and_early_on_it_is_a_mean():
    method = FixMatchDA(ema=0.9)
    net, batch = net_of(method), views()
    start = net["classifier"].out.weight.detach().clone()
    with torch.no_grad():
        net["classifier"].out.weight.add_(1.0)
    for _ in range(2):  # two micro-batches
        losses_of(method, net, batch, Progress(1, 10))
    teacher = net["teacher"].inner["classifier"].out.weight
    assert torch.allclose(teacher, start + 0.5, atol=1e-6)  # min(0.9, 1/2)
    losses_of(method, net, batch, Progress(50, 100))
    assert torch.allclose(teacher, start + 0.5 + 0.1 * 0.5, atol=1e-6)


def test_only_the_student_trains_and_the_teacher_predicts():
    method = SelfEnsembling(threshold=0.0)
    net, batch = net_of(method), views()
    (moved,) = updates.moves(method, net, batch)
    assert moved == {"backbone", "classifier"} or "teacher" in moved  # it follows at the start
    net.eval()
    said = method.predict(net, batch["target"].x, Query()).scores
    assert torch.equal(said, net["teacher"](batch["target"].x, "target").logits)


@pytest.mark.parametrize(
    ("method", "arguments", "words"),
    [
        (FixMatchDA, {"threshold": 1.5}, "from 0 to 1"),
        (FixMatchDA, {"view": "week"}, "did you mean 'weak'"),
        (FixMatchDA, {"ema": 1.0}, "from 0 to below 1"),
        (SelfEnsembling, {"consistency": -1.0}, "from 0"),
        (SelfEnsembling, {"view": "strong"}, "weak"),
        (VADA, {"radius": 0.0}, "method.radius"),
        (VADA, {"ema": -0.1}, "method.ema"),
        (VADA, {"trade_off": -1.0}, "method.trade_off"),
        (DirtT, {"interval": 0}, "method.interval"),
        (DirtT, {"beta": -1.0}, "method.beta"),
    ],
)
def test_bad_arguments_are_refused(method, arguments, words):
    with pytest.raises(ConfigError, match=words):
        small.configured(method, **arguments)


def test_vada_is_its_equation():
    method = VADA(source_vat=0.5, target_weight=0.1, radius=1.0, domain_dropout=0.0)
    net, batch = net_of(method), small.batch()
    other = copy.deepcopy(net)
    torch.manual_seed(5)
    found = losses_of(method, net, batch)
    x = batch["target"].x
    logits = other(x, "target").logits
    p = logits.softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    assert found["entropy"].item() == pytest.approx(0.1 * entropy.item(), rel=1e-5)
    torch.manual_seed(5)  # the target's random directions come first
    vat = vat_loss(lambda z: other(z, "target").logits, x, logits, radius=1.0, xi=1.0, iterations=1)
    assert found["target_vat"].item() == pytest.approx(0.1 * vat.item(), rel=1e-3)
    assert found["source_vat"].item() > 0


def test_vat_leaves_the_statistics_alone():
    method = VADA()
    net, batch = net_of(method), small.batch()
    before = copy.deepcopy(dict(net.named_buffers()))
    method.vat(net, batch["target"].x, "target")
    assert all(torch.equal(before[name], buffer) for name, buffer in net.named_buffers())


def test_dirt_t_refines_on_the_target_alone_near_its_last_point():
    method = DirtT(beta=0.5, interval=2, target_weight=0.0)
    net = net_of(method)
    _, refine = method.phases(None)
    assert refine.streams == ("target",)
    with torch.no_grad():
        net["teacher"].inner["classifier"].out.weight.add_(1.0)
    method.start(refine, net, None)
    weight = net["classifier"].out.weight
    assert torch.equal(weight, net["teacher"].inner["classifier"].out.weight)  # from the average
    x = small.batch()["target"].x
    anchor = net["anchor"].inner["classifier"].out.weight.clone()
    assert torch.equal(anchor, weight)
    batch = {"target": small.batch()["target"]}
    with torch.no_grad():
        weight.add_(0.3)
    found = losses_of(method, net, batch, Progress(1, 10))
    q = net["anchor"].teach(x, "target").logits.log_softmax(1)
    p = net(x, "target").logits.log_softmax(1)
    expected = 0.5 * (q.exp() * (q - p)).sum(1).mean()
    assert found["stay"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert torch.equal(net["anchor"].inner["classifier"].out.weight, anchor)
    losses_of(method, net, batch, Progress(2, 10))
    assert not torch.equal(net["anchor"].inner["classifier"].out.weight, anchor)


@pytest.mark.parametrize("method", QUICK)
def test_what_the_teacher_is_sure_of_holds_for_the_distorted_view(method):
    """Trained on shifted images, both views of the target get the class of the plain one."""
    batch = updates.shifted()
    x, truth = batch["target"].x, torch.arange(16) % small.CLASSES
    strong = x + 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    batch["target"] = replace(batch["target"], views={"weak": strong, "strong": strong})
    net = net_of(method)
    updates.train(method, net, batch, steps=150)
    net.eval()
    with torch.no_grad():
        plain = method.predict(net, x, Query()).scores.argmax(1)
        distorted = net(strong, "target").logits.argmax(1)
    assert (plain == distorted).float().mean() > 0.9
    assert (plain == truth).float().mean() > 0.9
