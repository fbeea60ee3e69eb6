"""Methods with several sources: formulas against numpy, what they do, no image of the target."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from helpers import small
from helpers.hooks import crash_after_save
from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.data.pipeline.streams import Batch
from tlrun.errors import ConfigError
from tlrun.evaluate.selection import without_target
from tlrun.experiment.assemble import open_session
from tlrun.experiment.auto import resolve_auto
from tlrun.experiment.start import create_run_folder, run_experiment
from tlrun.inference.predict import load
from tlrun.methods.base import Phase, Progress
from tlrun.methods.generalisation.group_dro import GroupDRO, reweighted
from tlrun.methods.generalisation.mixstyle import EPS, MixStyle, mixed, partners
from tlrun.methods.generalisation.multi_source_coral import MultiSourceCoral, distance
from tlrun.methods.generalisation.vrex import VREx
from tlrun.methods.query import Query
from tlrun.run_folder.run_dir import RunDir

SOURCES = ("a", "b", "c")
METHODS = ("group_dro", "vrex", "mixstyle", "multi_source_coral")
DATA = SimpleNamespace(num_classes=small.CLASSES, sources=SOURCES)
WORDS = ("data=digits_styles_digitsm", "target_images=none")


def batch(size=6, hard=()):
    """Images of each source; in a `hard` one the labels have nothing to do with the images."""
    generator = torch.Generator().manual_seed(2)
    found = {}
    for i, name in enumerate(SOURCES):
        y = torch.arange(size) % small.CLASSES
        x = 0.1 * torch.randn(size, 3, 16, 16, generator=generator) + 0.3 * i
        x = x + y.view(-1, 1, 1, 1)
        if name in hard:
            y = y[torch.randperm(size, generator=generator)]
        found[name] = Batch(x, y, torch.arange(size))
    return found


def ready(method):
    """The method after its start, and its net."""
    net = small.net(dropout=0.0)
    method.build(Phase(), net, DATA)
    method.start(Phase(), net, DATA)
    return net.train()


def one_step(method, net, drawn, step=0, total=10):
    (update,) = method.step(net, drawn, Phase(), Progress(step, total))
    return update


def losses_of(net, drawn):
    """The cross-entropy of each source in one joint forward pass, by numpy."""
    with torch.no_grad():
        logits = net(torch.cat([b.x for b in drawn.values()])).logits.double().numpy()
    logits = logits - logits.max(1, keepdims=True)
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    y = torch.cat([b.y for b in drawn.values()]).numpy()
    return -logp[np.arange(len(y)), y].reshape(len(drawn), -1).mean(1)


# ---- group DRO --------------------------------------------------------------------------------


def test_the_weights_of_group_dro_equal_numpy():
    q, losses = np.array([0.2, 0.5, 0.3]), np.array([1.0, 2.0, 0.5])
    expected = q * np.exp(0.7 * losses)
    expected /= expected.sum()
    ours = reweighted(torch.tensor(q), torch.tensor(losses), 0.7)
    assert ours.numpy() == pytest.approx(expected, rel=1e-6)


def test_the_loss_of_group_dro_equals_numpy():
    method, drawn = GroupDRO(eta=2.0), batch(hard=("b",))
    net = ready(method)
    losses = losses_of(net, drawn)
    q = np.exp(2.0 * losses) / np.exp(2.0 * losses).sum()
    update = one_step(method, net, drawn)
    assert float(update.losses["classification"].detach()) == pytest.approx(q @ losses, rel=1e-5)
    assert float(update.metrics["weight_b"]) == pytest.approx(q[1], rel=1e-5)
    assert not method.q.requires_grad


def trained(method, drawn, steps=60):
    torch.manual_seed(0)
    net = ready(method)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for step in range(steps):
        update = one_step(method, net, drawn, step, steps)
        optimizer.zero_grad()
        sum(update.losses.values()).backward()
        optimizer.step()
    return net


def test_group_dro_puts_its_weight_on_the_worse_source():
    drawn, method = batch(size=8, hard=("b",)), GroupDRO(eta=0.1)
    worst = losses_of(trained(method, drawn), drawn)[1]
    assert method.q[1] > 0.6
    assert worst < losses_of(trained(GroupDRO(eta=0.0), drawn), drawn)[1]


def test_its_weights_are_part_of_the_state():
    method, drawn = GroupDRO(eta=1.0), batch(hard=("b",))
    one_step(method, ready(method), drawn)
    again = GroupDRO(eta=1.0)
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.q, method.q)
    assert float(method.q.max()) > 1 / 3


# ---- V-REx ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (1, 10.0), (9, 10.0)])
def test_the_loss_of_vrex_equals_numpy(step, factor):
    """The first tenth of ten steps is step 0."""
    method, drawn = VREx(), batch(hard=("b",))
    net = ready(method)
    losses = losses_of(net, drawn)
    update = one_step(method, net, drawn, step)
    found = {name: float(loss.detach()) for name, loss in update.losses.items()}
    expected = factor * ((losses - losses.mean()) ** 2).mean()
    assert found["classification"] == pytest.approx(losses.mean(), rel=1e-5)
    assert found["variance"] == pytest.approx(expected, rel=1e-3)


def test_vrex_equalises_the_risks():
    drawn = batch(size=8, hard=("b",))
    spreads = [np.ptp(losses_of(trained(VREx(beta), drawn), drawn)) for beta in (0.0, 10.0)]
    assert spreads[1] < 0.5 * spreads[0]


# ---- CORAL ------------------------------------------------------------------------------------


def test_the_distance_between_sources_equals_numpy():
    """DomainBed's: mean of squares of the differences of means and covariances, over pairs."""
    draw = np.random.default_rng(0)
    features = [draw.normal(size=(n, 4)) * n for n in (5, 7, 6)]
    expected = np.mean(
        [
            ((a.mean(0) - b.mean(0)) ** 2).mean()
            + ((np.cov(a, rowvar=False) - np.cov(b, rowvar=False)) ** 2).mean()
            for a, b in combinations(features, 2)
        ]
    )
    ours = distance([torch.tensor(f) for f in features])
    assert float(ours) == pytest.approx(expected, rel=1e-5)


def test_coral_brings_the_sources_together():
    drawn = batch(size=8)

    def apart(weight):
        net = trained(MultiSourceCoral(weight), drawn, steps=40)
        with torch.no_grad():
            features = net(torch.cat([b.x for b in drawn.values()])).features
        return float(distance(features.split(8)))

    assert apart(10.0) < 0.5 * apart(0.0)


# ---- MixStyle ---------------------------------------------------------------------------------


def test_mixing_equals_numpy():
    draw = np.random.default_rng(0)
    maps, share = draw.normal(size=(4, 3, 5, 5)), draw.uniform(size=(4, 1, 1, 1))
    partner = np.array([2, 3, 1, 0])
    mean = maps.mean((2, 3), keepdims=True)
    std = np.sqrt(maps.var((2, 3), keepdims=True) + EPS)
    new_mean = share * mean + (1 - share) * mean[partner]
    new_std = share * std + (1 - share) * std[partner]
    expected = (maps - mean) / std * new_std + new_mean
    ours = mixed(*map(torch.tensor, (maps, partner, share)))
    assert ours.numpy() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_share_of_one_changes_nothing_and_of_none_takes_the_others_style():
    maps, partner = torch.randn(2, 3, 8, 8) * torch.tensor([1.0, 4.0]).view(2, 1, 1, 1), [1, 0]
    partner = torch.tensor(partner)
    assert torch.allclose(mixed(maps, partner, torch.ones(2, 1, 1, 1)), maps, atol=1e-5)
    swapped = mixed(maps, partner, torch.zeros(2, 1, 1, 1))
    for moment in (torch.mean, torch.std):
        found, wanted = (moment(m, (2, 3)) for m in (swapped, maps[partner]))
        assert torch.allclose(found, wanted, atol=1e-3)


def test_partners_are_of_another_source():
    for sources in (2, 3, 4):
        for seed in range(5):
            torch.manual_seed(seed)
            drawn = partners(5 * sources, sources)
            assert sorted(drawn.tolist()) == list(range(5 * sources))
            assert (drawn // 5 != torch.arange(5 * sources) // 5).all()


def test_mixstyle_mixes_in_training_steps_and_nowhere_else():
    method, drawn = MixStyle(p=1.0, alpha=1.0), batch()
    net = ready(method)
    x = torch.cat([b.x for b in drawn.values()])
    unmixed = net(x).logits
    (update,) = method.step(net, drawn, Phase(), Progress(0, 10))
    mixed_logits = torch.cat([seen.logits for seen in update.outputs.values()])
    assert not torch.allclose(mixed_logits, unmixed)
    assert torch.equal(net(x).logits, unmixed)  # the hooks are gone
    net.eval()
    with torch.no_grad():
        found = method.predict(net, x, Query()).scores
        assert torch.equal(found, net(x).logits)
        assert torch.equal(method.predict(net, x[:1], Query()).scores, found[:1])


def test_with_p_0_it_is_plain_training():
    drawn, method = batch(), MixStyle(p=0.0)
    net = ready(method)
    loss = one_step(method, net, drawn).losses["classification"]
    assert float(loss.detach()) == pytest.approx(losses_of(net, drawn).mean(), rel=1e-5)


def test_stages_without_maps_are_named():
    net = ready(method := MixStyle(stages=("classifier",), p=1.0))
    with pytest.raises(ConfigError, match=r"needs feature maps \(B, C, H, W\), not \(18, 8\)"):
        next(method.step(net, batch(), Phase(), Progress(0, 10)))
    assert not any(m._forward_hooks for m in net.modules() if isinstance(m, nn.Module))
    with pytest.raises(ConfigError, match="are no stage of this backbone"):
        next(MixStyle(stages=("backbone[:0]",)).step(net, batch(), Phase(), Progress(0, 10)))


# ---- arguments and data -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "arguments", "said"),
    [
        (GroupDRO, {"eta": -1}, "method.eta=-1: expected a number from 0"),
        (VREx, {"beta": -1}, "method.beta=-1: expected a number from 0"),
        (VREx, {"anneal": 2}, "method.anneal=2: expected a number from 0 to 1"),
        (MixStyle, {"p": 2}, "method.p=2: expected a number from 0 to 1"),
        (MixStyle, {"alpha": 0}, "method.alpha=0: expected a number above 0"),
        (MultiSourceCoral, {"weight": -1}, "method.weight=-1: expected a number from 0"),
    ],
)
def test_arguments_are_checked(method, arguments, said):
    with pytest.raises(ConfigError, match=said):
        small.configured(method, **arguments)


def test_a_plain_pair_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="at least 2 sources, and digits_digitsm has 1"):
        small.session(tmp_path / "run", "method=vrex")


@pytest.mark.parametrize("method", METHODS)
def test_statistics_by_domain_are_refused(method, tmp_path):
    with pytest.raises(ConfigError, match="batch_norm=per_domain: this method takes joint"):
        small.session(tmp_path / "run", f"method={method}", WORDS[0], "batch_norm=per_domain")


def test_separate_forward_passes_work_but_for_mixstyle(tmp_path):
    session = small.session(
        tmp_path / "run", "method=vrex", *WORDS, "batch_norm=separate_forward", "trainer.steps=2"
    )
    session.trainer().fit()
    with pytest.raises(ConfigError, match="this method takes joint"):
        small.session(tmp_path / "other", "method=mixstyle", *WORDS, "batch_norm=separate_forward")


# ---- whole runs without an image of the target ------------------------------------------------


@pytest.fixture
def quiet(monkeypatch):

    monkeypatch.setattr("tlrun.experiment.lifecycle.show", lambda run_dir: None)


def run(folder, *words):
    words = [*small.QUICK, *WORDS, *words]
    run_dir = create_run_folder(compose(words), folder, words)
    return run_dir, run_experiment(run_dir)


@pytest.mark.parametrize("method", ["source_only", "group_dro"])
def test_no_image_of_the_target_is_needed(method, tmp_path, quiet):
    run_dir, summary = run(tmp_path / "run", f"method={method}")
    assert summary["selection_rule"] == "source_accuracy"
    assert not summary["selection_fell_back"]
    assert summary["selected"]["target_test/accuracy"] is not None
    assert {f"{name}_test/accuracy" for name in ("plain", "inverted", "coloured")} <= set(
        summary["selected"]
    )
    keys = {
        key for row in run_dir.read_metrics() for key, value in row.items() if value is not None
    }
    assert not any("target_val" in key for key in keys)
    assert not {"validator/entropy", "validator/information_maximization"} & keys
    space = run_dir.read_json(run_dir.label_space)
    assert space["facts"]["sources"] == ["plain", "inverted", "coloured"]


def test_the_rule_must_not_look_at_the_target_either():
    assert without_target("information_maximization") == "source_accuracy"
    for rule in ("source_accuracy", "last", "oracle"):
        assert without_target(rule) == rule
    for rule in ("snd", "target_accuracy"):
        with pytest.raises(ConfigError, match=f"select={rule} looks at target images"):
            without_target(rule)


@pytest.mark.parametrize("method", ["group_dro", "mixstyle"])
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(method, tmp_path):
    """The weights of one, the draws of the other."""
    words = (f"method={method}", *WORDS, "trainer.checkpoint_every=3", "trainer.eval_every=6")
    whole = small.session(tmp_path / "whole", *words)
    whole.trainer().fit()
    part = small.session(tmp_path / "part", *words)
    with pytest.raises(KeyboardInterrupt):
        part.trainer(crash_after_save(3, KeyboardInterrupt)).fit()
    torch.manual_seed(99)
    cfg = plain(resolve_auto(compose([*small.QUICK, *words])))
    again = open_session(RunDir(tmp_path / "part"), cfg)
    again.trainer().fit()
    before, after = ({**s.net.state_dict(), **s.method.state_dict()} for s in (whole, again))
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_predict_needs_the_run_folder_alone(tmp_path, quiet):
    """`tlrun predict` builds the phases from label_space.json alone."""
    run_dir, _ = run(tmp_path / "run", "method=vrex")
    assert load(run_dir.path)(torch.zeros(2, 3, 28, 28)).shape == (2, 10)
