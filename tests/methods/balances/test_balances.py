"""Every balance against an independent calculation, known values, and through the engine."""

import inspect
import math

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from helpers import small
from tlrun.config.build import build, locate, plain
from tlrun.config.packaged import conf_dir
from tlrun.engine import checkpoint
from tlrun.errors import ConfigError, Interrupted
from tlrun.methods.balances.base import PART
from tlrun.methods.balances.dwa import DWA
from tlrun.methods.balances.equal import Fixed
from tlrun.methods.balances.famo import FAMO
from tlrun.methods.balances.geometric import GLS
from tlrun.methods.balances.gradients import IMTLG, MGDA, AlignedMTL, CAGrad, PCGrad, UPGrad
from tlrun.methods.balances.random import RLW
from tlrun.methods.balances.uncertainty import Uncertainty

NAMES = sorted(path.stem for path in (conf_dir() / "balance").glob("*.yaml"))
TASKS = {"what": "class", "where": "box"}
WORDS = ("method=multitask", "data=digits_canvas", "trainer.batch_size=8", "backbone.width=0.1")


def losses(*values):
    return {
        name: torch.tensor(float(v), requires_grad=True)
        for name, v in zip(TASKS, values, strict=True)
    }


def gradients(balance, found, net=None):
    total, weights = balance.combine(found, net, [])
    return total, torch.autograd.grad(total, list(found.values())), weights


@pytest.mark.parametrize("name", NAMES)
def test_the_config_lists_every_argument_with_its_default(name):
    cfg = plain(OmegaConf.load(conf_dir() / "balance" / f"{name}.yaml"))
    parameters = inspect.signature(locate(cfg.pop("_target_"))).parameters
    assert cfg == {key: p.default or {} for key, p in parameters.items()}


def test_fixed_weights():
    balance = Fixed({"where": 3.0})
    balance.module(TASKS)
    total, (a, b), _ = gradients(balance, losses(2, 5))
    assert (total.item(), float(a), float(b)) == (17.0, 1.0, 3.0)
    with pytest.raises(ConfigError, match="did you mean 'where'"):
        Fixed({"wher": 3.0}).module(TASKS)


def test_random_weights_add_up_to_1_and_are_drawn_by_the_seed():
    torch.manual_seed(3)
    z = torch.randn(2)
    torch.manual_seed(3)
    total, grads, weights = gradients(RLW(), losses(2, 5))
    expected = z.exp() / z.exp().sum()
    torch.testing.assert_close(torch.stack(grads), expected)
    torch.testing.assert_close(torch.stack(list(weights.values())), expected)
    assert total.item() == pytest.approx(float(expected @ torch.tensor([2.0, 5.0])))


def test_the_geometric_mean_knows_no_scale():
    total, (a, b), weights = gradients(GLS(), losses(2, 8))
    assert total.item() == pytest.approx(4.0)
    assert (float(a), float(b)) == pytest.approx((4 / (2 * 2), 4 / (2 * 8)))
    assert float(weights["where"]) == pytest.approx(float(b))
    scaled, (a10, _), _ = gradients(GLS(), losses(20, 8))
    assert scaled.item() == pytest.approx(4.0 * math.sqrt(10))
    assert float(a10 * 20) / scaled.item() == pytest.approx(float(a * 2) / total.item())


def test_uncertainty_is_kendalls_and_ends_at_the_scale_of_the_losses():
    """The minimum over s is e^s = L for a class, e^s = L too for a box with its halves."""
    net, balance = small.net(), Uncertainty()
    net.add(PART, balance.module(TASKS))
    s = net[PART].s
    with torch.no_grad():
        s["what"].fill_(0.3)
        s["where"].fill_(-0.7)
    total, (a, b), _ = gradients(balance, losses(2, 5), net)
    assert total.item() == pytest.approx(
        math.exp(-0.3) * 2 + 0.15 + 0.5 * math.exp(0.7) * 5 - 0.35, rel=1e-6
    )
    assert (float(a), float(b)) == pytest.approx((math.exp(-0.3), 0.5 * math.exp(0.7)))
    optimizer = torch.optim.SGD(net[PART].parameters(), lr=0.1)
    for _ in range(500):
        optimizer.zero_grad()
        balance.combine({"what": torch.tensor(2.0), "where": torch.tensor(5.0)}, net, [])[
            0
        ].backward()
        optimizer.step()
    assert float(s["what"].detach()) == pytest.approx(math.log(2 * 2), abs=1e-3)
    assert float(s["where"].detach()) == pytest.approx(math.log(5), abs=1e-3)


def test_dwa_weighs_by_the_fall_of_the_last_two_windows():
    balance = DWA(temperature=2.0, window=2)
    for first, second in ((4, 8), (2, 8), (2, 4), (2, 4)):  # means 3, 8 then 2, 4
        _, grads, _ = gradients(balance, losses(first, second))
        assert [float(g) for g in grads] == [1.0, 1.0]
    _, grads, _ = gradients(balance, losses(1, 1))
    r = torch.tensor([2 / 3, 4 / 8]) / 2
    torch.testing.assert_close(torch.stack(grads), 2 * r.exp() / r.exp().sum())


def test_famo_is_the_papers_loss_and_gives_weight_to_the_task_that_fell_less():
    balance = FAMO(lr=0.1, decay=0.0)
    balance.module(TASKS)
    total, grads, weights = gradients(balance, losses(2, 5))
    z, now = torch.tensor([0.5, 0.5]), torch.tensor([2.0, 5.0])
    c = 1 / (z / now).sum()
    assert total.item() == pytest.approx(float(c * (z * now.log()).sum()), rel=1e-5)
    torch.testing.assert_close(torch.stack(grads), c * z / now)
    assert float(sum(grads)) == pytest.approx(1.0)
    balance.update_weights({"what": torch.tensor(1.0), "where": torch.tensor(4.9)})
    _, _, after = gradients(balance, losses(1, 4.9))
    assert float(after["where"]) > float(weights["where"])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (PCGrad, [0.8, 1.4]),
        (MGDA, [0.3077, 0.4615]),
        (UPGrad, [0.4, 0.7]),
        (IMTLG, [0.2918, 0.4721]),
    ],
)
def test_known_values_of_the_aggregators(kind, expected):
    """J = [[1, 0], [-.5, 1]] on a shared parameter; each head gets its plain gradient."""
    pytest.importorskip("torchjd")
    shared, heads = nn.Parameter(torch.zeros(2)), [nn.Parameter(torch.zeros(1)) for _ in TASKS]
    jacobian = torch.tensor([[1.0, 0.0], [-0.5, 1.0]])
    found = {
        name: row @ shared + 3 * head.sum()
        for name, row, head in zip(TASKS, jacobian, heads, strict=True)
    }
    total, _ = kind().combine(found, None, [shared, *heads])
    got = torch.autograd.grad(total, [shared, *heads])
    torch.testing.assert_close(got[0], torch.tensor(expected), rtol=0, atol=2e-3)
    assert [float(g) for g in got[1:]] == [3.0, 3.0]


@pytest.mark.parametrize("kind", [PCGrad, MGDA, CAGrad, IMTLG, AlignedMTL, UPGrad])
def test_gradients_that_agree_are_followed(kind):
    pytest.importorskip("torchjd")
    w = nn.Parameter(torch.zeros(3))
    found = {name: (w * torch.tensor([1.0, 2.0, 0.0])).sum() for name in TASKS}
    total, _ = kind().combine(found, None, [w])
    (got,) = torch.autograd.grad(total, [w])
    assert torch.cosine_similarity(got, torch.tensor([1.0, 2.0, 0.0]), 0) > 0.999


@pytest.mark.parametrize("name", NAMES)
def test_through_the_engine(name, tmp_path):
    trained = small.session(
        tmp_path / "run", *WORDS, f"balance={name}", "trainer.steps=2", "optimizer.weight_decay=0.1"
    )
    trained.trainer().fit()
    rows = [row for row in trained.run_dir.read_metrics() if row["split"] == "train"]
    assert {"loss/digit", "loss/place"} <= set(rows[-1])
    weighed = {"rlw", "gls", "uncertainty", "dwa", "famo"}
    assert ("metric/weight_digit" in rows[-1]) == (name in weighed)


@pytest.mark.parametrize("name", ["rlw", "uncertainty", "dwa", "famo"])
def test_a_resumed_run_equals_a_straight_one(name, tmp_path):
    words = (*WORDS, f"balance={name}", "trainer.steps=6", "trainer.checkpoint_every=1")
    words = (*words, "balance.window=2") if name == "dwa" else words
    straight = small.session(tmp_path / "straight", *words)
    straight.trainer().fit()
    broken = small.session(tmp_path / "broken", *words)
    trainer, step = broken.trainer(), broken.method.step

    def stopping(net, batch, phase, progress):
        trainer.stop.exit_code = 143 if progress.step == 3 else None
        return step(net, batch, phase, progress)

    broken.method.step = stopping
    with pytest.raises(Interrupted):
        trainer.fit()
    again = small.session(tmp_path / "again", *words)
    again.run_dir = broken.run_dir
    again.trainer().fit()
    a, b = (checkpoint.load(s.run_dir.checkpoints / "last.pt") for s in (straight, broken))
    assert a["parts"].keys() == b["parts"].keys()
    for part, state in a["parts"].items():
        assert all(torch.equal(value, b["parts"][part][key]) for key, value in state.items()), part


def test_equal_is_the_plain_sum_without_a_balance(tmp_path):
    assert small.session(tmp_path / "run", *WORDS).balance is None


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("balance=uncertainty",), "method=multitask"),
        ((*WORDS, "balance=famo", "trainer.accumulate=2"), "whole batches"),
        ((*WORDS, "balance=upgrad", "trainer.devices=2"), "one process only"),
        ((*WORDS, "balance=fixed", "balance.weights.plac=2"), "did you mean 'place'"),
        ((*WORDS, "balance=fixed", "balance.weights={plac: 2}"), "did you mean 'place'"),
    ],
)
def test_mistakes_are_explained(words, why, tmp_path):
    with pytest.raises(ConfigError, match=why):
        small.session(tmp_path / "run", *words)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchjd", None)
    with pytest.raises(ConfigError, match=r"pip install 'tlrun\[mtl\]'"):
        build({"_target_": "tlrun.methods.balances.gradients.PCGrad"})
