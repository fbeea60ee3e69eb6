"""Heads that learn without a group of seen classes, beside the one that learns all: γ is theirs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers import half, small, zero_shot
from helpers.hooks import Crash, crash_before
from helpers.sessions import reopened, rows
from tlrun.cli.main import main
from tlrun.data.examples.attribute_table import Table
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Card
from tlrun.data.pipeline.streams import Batch
from tlrun.data.problems.zero_shot import assemble
from tlrun.engine import checkpoint
from tlrun.evaluate.evaluators.attribute_figures import best_gamma, curve, curve_of, harmonic_mean
from tlrun.methods.base import Progress
from tlrun.methods.zero_shot import trained_head
from tlrun.methods.zero_shot.ale import ALE
from tlrun.methods.zero_shot.dap import DAP
from tlrun.methods.zero_shot.devise import DeViSE
from tlrun.methods.zero_shot.sje import SJE
from tlrun.methods.zero_shot.trained_head import HELD_OUT
from tlrun.models.backbones import MLP
from tlrun.models.net import Net

METHODS = (ALE, DeViSE, SJE, DAP)
HEAD = {ALE: "mapping", DeViSE: "mapping", SJE: "mapping", DAP: "classifier"}
torch.set_num_threads(1)


def trained(method, data, batches, part, net=None):
    """By plain SGD on one part, on these batches; net: to go on with."""
    net = zero_shot.built(method, data) if net is None else net
    net.backbone.requires_grad_(False)
    phase = method.phases(data)[-1]
    optimizer = torch.optim.SGD(net[part].parameters(), lr=0.5, momentum=0.9)
    for k, batch in enumerate(batches):
        for update in method.step(net, {"source": batch}, phase, Progress(k, len(batches))):
            if update.parts == (part,) or (update.main and part != HELD_OUT):
                optimizer.zero_grad()
                sum(update.losses.values()).backward(inputs=list(net[part].parameters()))
                optimizer.step()
    return net.eval()


def batches_of(data, count=25, size=16):
    stream, draws = data.role("source_train"), torch.Generator().manual_seed(4)
    for _ in range(count):
        index = torch.randint(len(stream), (size,), generator=draws)
        yield Batch(stream.read(index), stream.labels[index], index)


def test_heads_of_groups_that_cover_all_classes():
    data = zero_shot.data(groups=zero_shot.NO_VALIDATION)
    net = zero_shot.built(ALE(), data)
    assert [one.held for one in net[HELD_OUT]] == list(trained_head.groups(data.facts))
    assert {c for one in net[HELD_OUT] for c in one.held} == set(range(6))
    assert all(set(one.others) == set(range(6)) - set(one.held) for one in net[HELD_OUT])
    (phase,) = ALE().phases(data)
    assert phase.parts == ("mapping", HELD_OUT)
    given = replace(data, facts=replace(data.facts, gamma=0.1))  # of an evaluation: the same parts
    assert ALE().phases(given) == [phase]


def test_validation_classes_need_no_further_head():
    data = zero_shot.data()
    for kind in METHODS:
        net = zero_shot.built(kind(), data)
        assert HELD_OUT not in net.parts
        assert list(kind().held_out(net, data)) == []
    assert ALE().phases(data)[0].parts == ("mapping",)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", METHODS)
def test_it_is_the_head_of_data_without_the_group(kind, missing):
    """Against a method that is given the other classes alone, image by image and row by row."""
    data = zero_shot.data(groups=zero_shot.NO_VALIDATION, missing=missing)
    batches = list(batches_of(data))
    net = trained(kind(), data, batches, HELD_OUT)
    X, y, _ = zero_shot.train_arrays(data)
    for one, turn in zip(net[HELD_OUT], kind().held_out(net, data), strict=True):
        others = [data.classes[c] for c in one.others]
        unseen = [c for c in zero_shot.CLASSES if c not in others]
        groups = {"training": others, "validation": [], "unseen": unseen}
        alone = zero_shot.data(groups=groups, missing=missing)
        number = torch.tensor([alone.classes.index(c) for c in data.classes])
        kept = [torch.isin(batch.y, torch.tensor(one.others)) for batch in batches]
        own = [
            Batch(batch.x[keep], number[batch.y[keep]], batch.index[keep])
            for batch, keep in zip(batches, kept, strict=True)
        ]
        method = kind()
        fresh = zero_shot.built(method, alone)
        if kind is not DAP:  # the two data sets hold out other images: measure on the first's
            fresh["mapping"].fit_input(torch.from_numpy(X[np.isin(y, one.others)]))
        wanted = trained(method, alone, own, HEAD[kind], fresh)
        for name, value in wanted[HEAD[kind]].state_dict().items():
            torch.testing.assert_close(one.head.state_dict()[name], value, rtol=1e-4, atol=1e-5)
        assert turn.held == one.held
        assert set(turn.unseen.labels.tolist()) == set(one.held)
        x = torch.from_numpy(X[np.isin(y, one.held)]).float()
        scores = method.scores(wanted, wanted(x))[:, number]
        torch.testing.assert_close(turn.unseen.scores, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", METHODS)
def test_autocast_and_a_batch_of_held_out_classes_alone(kind):
    """No image for a head to learn from: its loss is 0. In bf16 the scores are those of fp32."""
    data = zero_shot.data(groups=zero_shot.NO_VALIDATION)
    method = kind()
    net = zero_shot.built(method, data)
    y = torch.tensor(net[HELD_OUT][0].held).repeat(3)
    (update,) = method.held_out_update(net, torch.randn(len(y), 10), y)
    assert update.losses[HELD_OUT].isfinite()
    update.losses[HELD_OUT].backward()
    assert all((p.grad == 0).all() for p in net[HELD_OUT][0].head.parameters())
    exact, found = [], []
    for on, turns in ((False, exact), (True, found)):
        with half.autocast(on):
            turns += method.held_out(net, data)
    for one, two in zip(exact, found, strict=True):
        torch.testing.assert_close(one.unseen.scores, two.unseen.scores)


def linear_world(world):
    """20 animals of 12 attributes, the last 5 of them unseen; features are a noisy linear map of
    the attributes, so that a bilinear score can tell all of them apart."""
    draws = np.random.default_rng(world)
    names = tuple(f"animal{k:02}" for k in range(20))
    table = draws.random((20, 12))
    label = np.arange(20 * 60) % 20
    x = (table - table.mean(0))[label] @ draws.standard_normal((12, 24))
    x = torch.from_numpy((x + 0.35 * draws.standard_normal(x.shape)).astype(np.float32))
    examples = ImageSet("world", x, torch.from_numpy(label), names)
    half = torch.arange(len(label)) < len(label) // 2
    train, test = (examples.subset(torch.nonzero(m).flatten()) for m in (half, ~half))
    return assemble(
        "world",
        Table(names, tuple(f"a{k}" for k in range(12)), table),
        {"training": names[:15], "validation": [], "unseen": names[15:]},
        {"train": train, "seen": test, "unseen": test},
        Card("world", "", ""),
        seed=0,
        gamma=None,
        conf={"normalize": "none"},
    )


@pytest.mark.parametrize("kind", METHODS)
def test_gamma_of_held_out_classes_serves_the_unseen_ones(kind):
    """H of 5 unseen among 15 seen animals: near the best that any γ gives, and above γ = 0.

    In three worlds 2 to 36 points above, and 0.2 to 2.2 (DAP 5 to 7) below the best.
    """
    for world in (0, 1):
        data, method = linear_world(world), kind()
        torch.manual_seed(0)
        net = Net(MLP((24,), hidden=()), (24,), head={"hidden": []})
        (phase,) = method.phases(data)
        method.build(phase, net, data)
        method.start(phase, net, data)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for k, batch in enumerate(batches_of(data, count=300, size=32)):
            for update in method.step(net, {"source": batch}, phase, Progress(k, 300)):
                optimizer.zero_grad()
                sum(update.losses.values()).backward()
                optimizer.step()
        net.eval()
        gamma = best_gamma([curve_of(turn, 20) for turn in method.held_out(net, data)])
        sides = []
        for role in ("source_test", "target_test"):
            examples = data.role(role)
            x = examples.read(torch.arange(len(examples)))
            with torch.no_grad():
                sides.append((method.scores(net, net(x)), examples.labels))
        steps = curve(*sides, torch.arange(20) < 15, torch.ones(20, dtype=torch.bool))
        plain, calibrated, best = (
            harmonic_mean(*steps.at(value)) for value in (0.0, gamma, steps.best())
        )
        assert calibrated > plain + 0.01
        assert calibrated > best - 0.12


# ---- through the engine -------------------------------------------------------------------------


PIXELS = ("backbone=mlp", "backbone.hidden=[]", "data.size=8", "data.augment.source=null")
RUNS = {
    "ale": ("method=ale", "phases.features.steps=3", "trainer.grad_clip=0.1"),
    "dap": ("method=dap", "trainer.grad_clip=0.1"),
    "dap on pixels": ("method=dap", "trainer.accumulate=2", *PIXELS),
    "dap with dropout": (
        "method=dap",
        "backbone.head.hidden=[16]",
        "backbone.head.dropout=0.5",
        *PIXELS,
    ),
}


def session_of(folder, name):
    return small.session(folder, *words_of(name))


def words_of(name):
    own = ("data=digits_attributes", "data.validation=[]", "trainer.checkpoint_every=2")
    return (*own, "select=last", *RUNS[name])


@pytest.fixture(autouse=True)
def any_backbone(monkeypatch):
    """Pixels have no width."""
    quick = tuple(word for word in small.QUICK if "width" not in word)
    monkeypatch.setattr(small, "QUICK", quick)


def weights(session):
    return {name: value.clone() for name, value in session.net.state_dict().items()}


def gamma_of(session):
    with torch.no_grad():
        return session.evaluator.gamma(session.net.eval())


@pytest.mark.parametrize("name", RUNS)
def test_a_crash_and_a_resume_equal_a_straight_run(name, tmp_path):
    straight = session_of(tmp_path / "straight", name)
    straight.trainer().fit()
    with pytest.raises(Crash):
        session_of(tmp_path / "broken", name).trainer(crash_before(5)).fit()
    torch.rand(3)  # another process has other random states
    resumed = reopened(tmp_path / "broken", *words_of(name))
    resumed.trainer().fit()
    ours, theirs = weights(straight), weights(resumed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert any(key.startswith(f"parts.{HELD_OUT}") for key in ours)
    assert rows(straight) == rows(resumed)
    assert gamma_of(straight) == gamma_of(resumed) is not None
    saved = [checkpoint.load_last(s.run_dir.checkpoints)["optimizer"] for s in (straight, resumed)]
    assert str(saved[0]) == str(saved[1])


@pytest.mark.parametrize("name", RUNS)
def test_the_head_learns_as_if_it_were_alone(name, tmp_path, monkeypatch):
    """To the bit, also where gradients are clipped: that is done for each update. A dropout in the
    further heads draws no numbers that the net would draw."""
    beside = session_of(tmp_path / "beside", name)
    beside.trainer().fit()
    monkeypatch.setattr(trained_head, "groups", lambda facts: [])
    alone = session_of(tmp_path / "alone", name)
    alone.trainer().fit()
    ours, theirs = weights(beside), weights(alone)
    assert {key for key in ours if key not in theirs} == {k for k in ours if HELD_OUT in k} != set()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert gamma_of(alone) is None


def test_a_head_that_is_carried_over_has_learned_all_classes(tmp_path):
    """In the other run; so those of held-out classes begin with weights of their own."""
    finished(tmp_path / "first", "dap on pixels")
    learned = load_file(tmp_path / "first/model.safetensors")
    init = (*words_of("dap on pixels"), f"init={tmp_path / 'first'}")
    session = small.session(tmp_path / "second", *init)
    with pytest.raises(Crash):
        session.trainer(crash_before(0)).fit()
    assert "classifier.out" in session.net.carried
    assert HELD_OUT not in session.net.carried
    carried = session.net["classifier"].out.weight
    assert torch.equal(carried, learned["classifier.out.weight"])
    for k, one in enumerate(session.net[HELD_OUT]):
        for other in (carried, learned[f"{HELD_OUT}.{k}.head.out.weight"]):
            assert not torch.equal(one.head.out.weight, other)


@pytest.mark.parametrize("term", ["ewc", "l2_sp"])
def test_terms_act_as_if_the_head_were_alone(term, tmp_path, monkeypatch):
    """They know weights of a run that `init` names, among which the further heads do not count."""
    finished(tmp_path / "first", "dap on pixels")
    words = (*words_of("dap on pixels"), f"init={tmp_path / 'first'}", f"terms=[{term}]")
    beside = small.session(tmp_path / "beside", *words)
    beside.trainer().fit()
    monkeypatch.setattr(trained_head, "groups", lambda facts: [])
    alone = small.session(tmp_path / "alone", *words)
    alone.trainer().fit()
    ours, theirs = weights(beside), weights(alone)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_gamma_is_where_a_search_by_hand_finds_it(tmp_path):
    """ALE on the bundled digits: scores and means by numpy, and every γ of a fine grid."""
    words = ("data=digits_attributes", "data.validation=[]", "select=last", "method=ale", *PIXELS)
    steps = ("trainer.steps=120", "trainer.eval_every=120", "optimizer.lr=1e-2")
    session = small.session(tmp_path / "run", *words, *steps, "trainer.batch_size=32")
    session.trainer().fit()
    gamma, net, data = gamma_of(session), session.net, session.data
    table = np.array(data.facts.attributes, dtype=float)

    def pixels(role):
        examples = data.role(role)
        x = data.preprocess(examples.read(torch.arange(len(examples)))).flatten(1)
        return x.double().numpy(), examples.labels.numpy()

    (train, train_y), (val, val_y) = pixels("source_train"), pixels("source_val")
    grid = np.linspace(-1.0, 1.0, 401)
    harmonic = np.zeros(len(grid))
    for one in net[HELD_OUT]:
        others, held = list(one.others), list(one.held)
        rows_ = table / np.abs(table[others]).max(0).clip(1e-12)
        rows_ /= np.linalg.norm(rows_, axis=1, keepdims=True)
        of = train[np.isin(train_y, others)]
        scale = np.sqrt(((of - of.mean(0)) ** 2).sum(1).mean())
        W = one.head.weight.detach().double().numpy()
        sides = []
        for x, y, own in ((val, val_y, others), (train, train_y, held)):
            keep = np.isin(y, own)
            score = (x[keep] - of.mean(0)) / scale @ W @ rows_.T
            best = [score[:, group].max(1) for group in (others, held)]
            right = np.array(own)[score[:, own].argmax(1)] == y[keep]
            sides.append((best[0] - best[1], right, y[keep]))
        for k, g in enumerate(grid):
            means = []
            for (margin, right, y), at_home in zip(sides, (True, False), strict=True):
                taken = right & ((margin > g) == at_home)
                means.append(np.mean([taken[y == c].mean() for c in np.unique(y)]))
            harmonic[k] += 2 * means[0] * means[1] / max(sum(means), 1e-12) / len(net[HELD_OUT])
    assert np.interp(gamma, grid, harmonic) >= harmonic.max() - 0.01
    assert harmonic.max() > np.interp(0.0, grid, harmonic) + 0.1
    assert abs(gamma - grid[harmonic.argmax()]) < 0.1
    with torch.no_grad():
        figures, _ = session.evaluator.test(net.eval())
    assert figures["calibration/gamma"] == gamma
    assert figures["calibrated/harmonic_mean"] > figures["harmonic_mean"]


def finished(folder, name):
    """A run by the command: with all that `init`, `evaluate` and `predict` read."""
    words = [*small.QUICK, *words_of(name), f"hydra.run.dir={folder}", "report=none"]
    assert main(words) == 0


def test_a_finished_run_predicts_and_is_evaluated_with_another_gamma(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finished("run", "ale")
    gamma = json.loads((tmp_path / "run/summary.json").read_text())["selected"]["calibration/gamma"]
    assert gamma is not None
    assert main(["evaluate", "run"]) == 0
    assert main(["evaluate", "run", "data.gamma=0.25"]) == 0
    found = [
        json.loads(path.read_text())["calibration/gamma"]
        for path in (tmp_path / "run/evaluations").glob("*.json")
    ]
    assert sorted(found) == pytest.approx(sorted([gamma, 0.25]))
    space = json.loads((tmp_path / "run/label_space.json").read_text())
    names = space["facts"]["attribute_names"]
    (tmp_path / "more.csv").write_text(f"class,{','.join(names)}\ndash{',0.5' * len(names)}\n")
    Image.fromarray(np.zeros((28, 28), np.uint8)).save("one.png")
    assert main(["predict", "run", "one.png", "--classes", "more.csv"]) == 0
    assert main(["export", "run", "--to", "torch_export"]) == 0
    program = torch.export.load("run/model.pt2")
    assert "net.parts.mapping.weight" in program.state_dict
    assert not any(HELD_OUT in name for name in (*program.state_dict, *program.constants))


@pytest.mark.parametrize("name", ["ale", "dap on pixels"])
def test_a_run_of_before_has_no_such_heads(name, tmp_path, monkeypatch, capsys):
    """What needs them is refused, not answered by heads that have learned nothing."""
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as before:
        before.setattr(trained_head, "groups", lambda facts: [])
        finished("run", name)
    Image.fromarray(np.zeros((28, 28), np.uint8)).save("one.png")
    assert main(["predict", "run", "one.png"]) == 0
    assert main(["predict", "run", "one.png", "--gamma", "0.5"]) == 0
    assert main(["evaluate", "run", "data.gamma=0.25"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run"]) != 0
    assert "train it to its end, or anew, or give γ, as data.gamma=0.02" in capsys.readouterr().err
    assert main(["resume", "run", "trainer.steps=9"]) != 0
    assert "lacks the parts held_out" in capsys.readouterr().err
    (written,) = (tmp_path / "run/evaluations").glob("*.json")  # by the γ that was given
    assert json.loads(written.read_text())["calibration/gamma"] == 0.25
