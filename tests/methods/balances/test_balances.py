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
from tlrun.methods.balances.gradnorm import GradNorm
from tlrun.methods.balances.nash_mtl import NashMTL, bargain
from tlrun.methods.balances.random import RLW
from tlrun.methods.balances.stch import STCH
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


def test_the_bargain_is_the_papers_equation():
    """Two tasks by hand: with unit gradients at the cosine c, α = 1/√(1 + c) for both."""
    c = -0.5
    gram = torch.tensor([[1.0, c], [c, 1.0]])
    torch.testing.assert_close(bargain(gram), torch.full((2,), (1 + c) ** -0.5).double())
    generator = torch.Generator().manual_seed(2)
    for tasks in (1, 2, 3, 7):
        rows = torch.randn(tasks, 20, generator=generator) * torch.logspace(-4, 3, tasks)[:, None]
        alpha = bargain(rows @ rows.T)
        product = (rows.double() @ rows.double().T) @ alpha * alpha
        torch.testing.assert_close(product, torch.ones_like(product), rtol=1e-3, atol=0)
    assert bargain(torch.zeros(2, 2)).tolist() == [0, 0]
    assert bargain(torch.diag(torch.tensor([4.0, 0.0]))).tolist() == [0.5, 0]


def test_nash_mtl_knows_no_scale_and_has_a_longest_step():
    j = torch.tensor([[3.0, 0.0, 1.0], [-1.0, 2.0, 0.0]])
    free = NashMTL(max_norm=0)
    torch.testing.assert_close(free.aggregate(j), free.aggregate(j * torch.tensor([[50.0], [0.1]])))
    assert (j @ free.aggregate(j) > 0).all()  # no task loses
    capped = NashMTL(max_norm=0.1).aggregate(j)
    assert float(capped.norm()) == pytest.approx(0.1)
    torch.testing.assert_close(capped / 0.1, free.aggregate(j) / free.aggregate(j).norm())
    shared, heads = nn.Parameter(torch.zeros(3)), [nn.Parameter(torch.zeros(1)) for _ in TASKS]
    found = {
        name: row @ shared + 3 * head.sum() for name, row, head in zip(TASKS, j, heads, strict=True)
    }
    total, _ = free.combine(found, None, [shared, *heads])
    got = torch.autograd.grad(total, [shared, *heads])
    torch.testing.assert_close(got[0], free.aggregate(j))
    assert [float(g) for g in got[1:]] == [3.0, 3.0]


def test_gradnorm_moves_weights_as_its_equation_says():
    """One shared layer whose gradients are known: 1 and 4 long; losses at 2 and 8, then 1 and 8."""
    balance = GradNorm(alpha=1.0, lr=0.1)
    balance.module(TASKS)
    layer, heads = nn.Parameter(torch.zeros(1, 1)), [nn.Parameter(torch.zeros(1, 1)) for _ in TASKS]

    def combine(values):
        found = {
            name: slope * layer.sum() + head.sum() + value
            for name, slope, head, value in zip(TASKS, (1.0, 4.0), heads, values, strict=True)
        }
        return balance.combine(found, None, [layer, *heads])

    total, weights = combine((2.0, 8.0))
    assert total.item() == pytest.approx(10.0)
    assert [float(w) for w in weights.values()] == [1.0, 1.0]
    # lengths 1 and 4 around their mean 2.5: Adam's first step is 0.1 each, then the sum is 2 again
    assert balance.w.tolist() == pytest.approx([2 * 1.1 / 2.0, 2 * 0.9 / 2.0], abs=1e-5)
    (total, weights), before = combine((1.0, 8.0)), balance.w.detach().clone()
    assert list(map(float, weights.values())) == pytest.approx([1.1, 0.9], abs=1e-5)
    assert total.item() == pytest.approx(1.1 * 1 + 0.9 * 8, abs=1e-4)
    # r = (1/2, 1)/(3/4) and goals r · (1.1 + 3.6)/2, that is 1.57 and 3.13: both pulls are kept
    w = torch.tensor([1.1, 0.9], requires_grad=True)
    lengths, rate = torch.tensor([1.0, 4.0]), torch.tensor([0.5, 1.0]) / 0.75
    goal = (w * lengths).mean().detach() * rate
    (slope,) = torch.autograd.grad((w * lengths - goal).abs().sum(), w)
    assert slope.tolist() == [-1.0, 4.0]
    assert float(before.sum()) == pytest.approx(2.0)
    assert float(before[0]) > 1.1


def test_stch_is_a_smooth_maximum_of_what_the_losses_fell_to():
    balance = STCH(mu=0.5, warmup=2)
    for values in ((2, 10), (4, 30)):  # means 3 and 20; Σ log L meanwhile
        total, grads, _ = gradients(balance, losses(*values))
        assert total.item() == pytest.approx(math.log(values[0]) + math.log(values[1]), rel=1e-5)
        assert [float(g) for g in grads] == pytest.approx([1 / values[0], 1 / values[1]])
    total, grads, weights = gradients(balance, losses(1.5, 5))
    f = [math.log(1.5 / 3), math.log(5 / 20)]
    powers = [math.exp(v / 0.5) for v in f]
    assert total.item() == pytest.approx(2 * 0.5 * math.log(sum(powers) / 2), rel=1e-5)
    shares = [2 * p / sum(powers) for p in powers]
    assert [float(g) for g in grads] == pytest.approx([shares[0] / 1.5, shares[1] / 5], rel=1e-5)
    assert [float(w) for w in weights.values()] == pytest.approx([float(g) for g in grads])
    near_max = STCH(mu=1e-3, warmup=0)
    total, (a, b), _ = gradients(near_max, losses(2, 5))
    assert total.item() == pytest.approx(2 * math.log(5), abs=0.01)
    assert (float(a), float(b)) == pytest.approx((0, 2 / 5), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_through_the_engine(name, tmp_path):
    trained = small.session(
        tmp_path / "run", *WORDS, f"balance={name}", "trainer.steps=2", "optimizer.weight_decay=0.1"
    )
    trained.trainer().fit()
    rows = [row for row in trained.run_dir.read_metrics() if row["split"] == "train"]
    assert {"loss/digit", "loss/place"} <= set(rows[-1])
    weighed = {"rlw", "gls", "uncertainty", "dwa", "famo", "gradnorm", "stch"}
    assert ("metric/weight_digit" in rows[-1]) == (name in weighed)


@pytest.mark.parametrize("name", ["rlw", "uncertainty", "dwa", "famo", "gradnorm", "stch"])
def test_a_resumed_run_equals_a_straight_one(name, tmp_path):
    words = (*WORDS, f"balance={name}", "trainer.steps=6", "trainer.checkpoint_every=1")
    words += {"dwa": ("balance.window=2",), "stch": ("balance.warmup=4",)}.get(name, ())
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
