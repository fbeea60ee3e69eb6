"""LwF: the divergence from the old answers, on the same images, by a teacher that stays."""

import pytest
import torch

from helpers import sessions, small
from tlrun.config.build import build
from tlrun.errors import ConfigError
from tlrun.methods.terms.lwf import LwF

TERM = "terms=[lwf]"
AUGMENTED = "data.augment.target={rotate: 15, noise: 0.1}"


def test_the_divergence_is_kl_at_the_temperature():
    old, now = torch.randn(5, 4), torch.randn(5, 4)
    p, q = (torch.exp(z / 2) / torch.exp(z / 2).sum(1, keepdim=True) for z in (old, now))
    expected = (p * (p / q).log()).sum(1).mean()
    assert float(LwF(temperature=2.0).divergence(old, now)) == pytest.approx(
        float(expected), rel=1e-5
    )
    assert float(LwF().divergence(old, old)) == pytest.approx(0, abs=1e-6)


def test_teacher_and_student_see_the_same_augmented_image(tmp_path):
    session, batch = sessions.paused(tmp_path / "run", TERM, AUGMENTED, "terms.lwf.weight=3")
    teacher = sessions.copy_of(session)  # as it was: nothing is trained yet
    sessions.shaken(session)
    x = batch["target"].x
    update = sessions.update_of(session, batch)
    expected = 3 * LwF().divergence(teacher(x).logits, update.outputs["target"].logits)
    assert float(update.losses["lwf"]) == pytest.approx(float(expected), rel=1e-4)


def test_the_teacher_is_no_part_of_the_net_and_has_no_gradient(tmp_path):
    session, batch = sessions.paused(tmp_path / "run", TERM)
    names = set(session.net.state_dict())
    teacher = session.terms["lwf"].teacher.of(session.net)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    sessions.gradients(session, batch)
    assert set(session.net.state_dict()) == names
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_a_heavy_weight_keeps_the_old_answers(tmp_path):
    def change(weight):
        session, batch = sessions.paused(
            tmp_path / f"{weight}", TERM, f"terms.lwf.weight={weight}", "trainer.steps=40", at=42
        )
        x = batch["target"].x
        old = session.terms["lwf"].teacher.of(session.net)(x).logits.softmax(1)
        now = sessions.copy_of(session)(x).logits.detach().softmax(1)
        return float((now - old).abs().mean())

    assert change(100) < 0.5 * change(0)


def test_other_classes_keep_the_sources_own_head():
    """With a head of its own the student's old answers come from it, on the same features."""
    net = small.net()
    net.add("source_classifier", net.new_head(3))
    net.add("classifier", net.new_head(4))
    term = LwF()
    with pytest.raises(ConfigError, match="head that was learned on the source"):
        term.start(net, None)  # it is there, but was not carried over
    net.carried = tuple(net.select(["backbone", "source_classifier"]))
    term.start(net, None)
    assert term.heads == ["source_classifier"]
    batch = small.batch("target")["target"]
    from tlrun.methods.base import DomainOutput, Update

    features = net.features(batch.x)
    update = Update(
        {}, outputs={"target": DomainOutput(batch.x, features, net["classifier"](features))}
    )
    value = term.loss(update, net)["lwf"]
    old = term.teacher.of(net)(batch.x, head="source_classifier").logits
    expected = term.divergence(old, net["source_classifier"](features))
    assert float(value) == pytest.approx(float(expected), rel=1e-4, abs=1e-7)


def test_kill_and_resume(tmp_path):
    sessions.resumed_equals_straight(tmp_path, TERM, AUGMENTED, "terms.lwf.weight=2")


def test_without_an_old_head_it_says_so(tmp_path):
    options = (*sessions.FEW, TERM, "transfer.reinit=[classifier.out]")
    with pytest.raises(ConfigError, match="head that was learned on the source"):
        small.session(tmp_path / "run", *options).trainer().fit()
    with pytest.raises(ConfigError, match=r"terms\.lwf\.temperature=0: expected a number above 0"):
        build({"_target_": "tlrun.methods.terms.lwf.LwF", "temperature": 0}, "terms.lwf")
