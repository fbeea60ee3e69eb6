"""ADDA: its phases, which encoder serves which domain, what moves, resume."""

import copy
import dataclasses

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from helpers import small
from helpers.updates import MIDDLE, gap, moves, shifted, train
from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.engine import checkpoint
from tlrun.engine.hooks import Hooks
from tlrun.errors import ConfigError
from tlrun.experiment.assemble import open_session
from tlrun.experiment.auto import resolve_auto
from tlrun.methods.adversarial.adda import ADDA, ENCODER
from tlrun.methods.base import Phase, Progress
from tlrun.methods.query import Query
from tlrun.run_folder.run_dir import RunDir

ADVERSARIAL = Phase("adversarial", ("source", "target"))
SHORT = ("method=adda", "phases.source.steps=4", "phases.adversarial.steps=4")


def ready(mode="joint", source_steps=0, batch=None, **arguments):
    """The method and its net at the start of the adversarial phase, frozen as the engine does."""
    method = ADDA(**arguments)
    method.batch_norm = mode
    net = small.built(method, small.net(dropout=0.0))
    source, adversarial = method.phases(None)
    if source_steps:
        train(method, net, {"source": batch["source"]}, source_steps, phase=source)
    method.start(source, net, None)
    method.start(adversarial, net, None)
    for part in adversarial.frozen:
        net[part].requires_grad_(False)
    net.set_frozen_eval(net.select(adversarial.frozen))
    return method, net


def weights(net, part):
    return {k: v.clone() for k, v in net[part].state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_phases_and_their_optimizers():
    source, adversarial = ADDA(adversarial_lr=1e-4, beta1=0.4).phases(None)
    assert (source.name, source.streams, source.terms) == ("source", ("source",), False)
    assert adversarial.streams == ("source", "target")
    assert adversarial.frozen == ("backbone", "classifier")
    assert adversarial.optimizer == {"lr": 1e-4, "betas": (0.4, 0.999)}
    assert ADDA(adversarial_lr=None).phases(None)[1].optimizer == {"betas": (0.5, 0.999)}


def test_a_run_of_a_source_model_takes_the_place_of_the_source_phase():
    method = ADDA()
    method.init = "outputs/some_run"
    assert [phase.name for phase in method.phases(None)] == ["adversarial"]
    method.init = "pretrained"  # weights to start the source phase from
    assert len(method.phases(None)) == 2


def test_the_target_encoder_starts_as_a_copy_and_shares_no_weight():
    _, net = ready()
    assert same(weights(net, ENCODER), weights(net, "backbone"))
    mine = {id(p) for p in net[ENCODER].parameters()}
    assert mine.isdisjoint(id(p) for p in net.backbone.parameters())


@pytest.mark.parametrize("mode", ["joint", "per_domain"])
def test_a_step_moves_the_domain_head_then_the_target_encoder(mode):
    method, net = ready(mode)
    before = weights(net, "backbone"), weights(net, "classifier")
    assert moves(method, net, small.batch()) == [{"domain_head"}, {ENCODER}]
    assert same(before[0], weights(net, "backbone"))  # batch statistics too
    assert same(before[1], weights(net, "classifier"))


@pytest.mark.parametrize("attach", ["logits", "features"])
def test_both_losses_equal_the_formulas(attach):
    method, net = ready(attach=attach)
    batch, reference = small.batch(), copy.deepcopy(net)
    source = reference.backbone(batch["source"].x)
    target = reference[ENCODER](batch["target"].x)
    logits = reference["classifier"](target)
    shown = torch.cat([source, target])
    if attach == "logits":
        shown = torch.cat([reference["classifier"](source), logits])
    told = reference["domain_head"](shown)
    domains = torch.cat([torch.ones(8), torch.zeros(8)])
    head, encoder = method.step(net, batch, ADVERSARIAL, MIDDLE)
    expected = binary_cross_entropy_with_logits(told, domains)
    assert torch.allclose(head.losses["domain"], expected, rtol=1e-5)
    expected = binary_cross_entropy_with_logits(told[8:], torch.ones(8))
    assert torch.allclose(encoder.losses["encoder"], expected, rtol=1e-5)
    assert not head.main
    assert encoder.main
    assert torch.allclose(encoder.outputs["target"].logits, logits, atol=1e-5)
    assert torch.allclose(encoder.outputs["target"].features, target, atol=1e-5)


def test_each_domain_is_judged_through_its_own_encoder():
    method, net = ready()
    torch.nn.init.zeros_(next(net[ENCODER].parameters()))
    net.eval()
    x = small.batch()["target"].x
    own = method.predict(net, x, Query(domain="target"))
    other = method.predict(net, x, Query(domain="source"))
    assert torch.equal(own.features, net[ENCODER](x))
    assert torch.equal(other.features, net.backbone(x))
    assert torch.equal(own.scores, net["classifier"](own.features))
    assert not torch.equal(own.features, other.features)


def test_a_head_that_no_source_has_trained_is_refused(tmp_path):
    """It would be frozen as it is drawn."""
    source = small.session(tmp_path / "source", "method=source_only", "trainer.steps=1")
    source.trainer().fit()
    source.run_dir.config.write_text("{}")  # makes it a run folder
    words = ("method=adda", f"init={tmp_path / 'source'}", "trainer.steps=1")
    small.session(tmp_path / "fits", *words).trainer().fit()
    other = small.session(tmp_path / "other", *words, "backbone.head.hidden=[9]")
    with pytest.raises(ConfigError, match=r"no weights of the source for classifier\.fc1"):
        other.trainer().fit()


def test_before_the_second_phase_the_source_encoder_serves_both():
    method = ADDA()
    net = small.net()
    method.build(method.phases(None)[0], net, small.SimpleNamespace(num_classes=4))
    assert ENCODER not in net.parts
    x = small.batch()["target"].x
    assert torch.equal(method.predict(net.eval(), x, Query()).features, net.backbone(x))


def test_a_run_that_was_stopped_in_the_source_phase_predicts_with_its_encoder(tmp_path):
    session = small.session(tmp_path / "run", *SHORT)
    dataclasses.replace(session, phases=session.phases[:1]).trainer().fit()
    state = checkpoint.load(session.run_dir.checkpoints / "last.pt")
    session.build_all()  # with a target encoder that was never trained
    session.load(state)
    x = torch.randn(2, *session.data.input_shape)
    out = session.method.predict(session.net, x, Query())
    assert torch.equal(out.features, session.net.backbone(x))


def test_the_targets_features_come_to_resemble_the_sources():
    batch = shifted(32)
    method, net = ready(source_steps=20, batch=batch, domain_layers=1, attach="features")

    def apart():
        net.eval()
        with torch.no_grad():
            found = [method.predict(net, batch[d].x, Query(domain=d)).features for d in batch]
        return gap(*found)

    before = apart()
    optimizers = {
        part: torch.optim.Adam(net[part].parameters(), 2e-3, betas=(0.5, 0.999))
        for part in ("domain_head", ENCODER)
    }
    for step in range(60):
        net.train()
        net.set_frozen_eval(
            ["backbone.conv1", "backbone.conv2", "classifier.fc1", "classifier.out"]
        )
        for update in method.step(net, batch, ADVERSARIAL, Progress(step, 60)):
            (part,) = update.parts
            optimizers[part].zero_grad()
            sum(update.losses.values()).backward(inputs=list(net[part].parameters()))
            optimizers[part].step()
    assert apart() < 0.6 * before


def test_the_run_freezes_the_source_and_goes_on_after_a_stop(tmp_path):
    """Stopped in the second phase, resumed: the same weights, the copy is not made again."""
    words = (*SHORT, "trainer.checkpoint_every=2", "trainer.eval_every=2")
    whole = small.session(tmp_path / "whole", *words)
    whole.trainer().fit()
    assert not same(weights(whole.net, ENCODER), weights(whole.net, "backbone"))

    part = small.session(tmp_path / "part", *words)

    def stop_in_time(step):
        if step.phase.name == "adversarial" and step.progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        part.trainer(Hooks(before_step=stop_in_time)).fit()
    cfg = plain(resolve_auto(compose([*small.QUICK, *words])))
    again = open_session(RunDir(tmp_path / "part"), cfg)
    again.trainer().fit()
    assert same(whole.net.state_dict(), again.net.state_dict())
    rates = [r["lr"] for r in whole.run_dir.read_metrics() if r["split"] == "train"]
    assert max(rates[2:]) <= 2e-4 < max(rates)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"adversarial_lr": 0.0}, "adversarial_lr=0.0: expected a number above 0"),
        ({"attach": "feature"}, "did you mean 'features'"),
        ({"beta1": 1.0}, "beta1=1.0: expected a number from 0 to below 1"),
        ({"domain_hidden": 0}, "domain_hidden=0"),
        ({"domain_layers": -1}, "domain_layers=-1"),
        ({"domain_dropout": -0.1}, "domain_dropout=-0.1: expected"),
        ({"label_smoothing": 1.0}, "label_smoothing=1"),
    ],
)
def test_a_bad_argument_is_a_clear_error(arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        small.configured(ADDA, **arguments)
