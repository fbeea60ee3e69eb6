"""Classes held out in turn: which, what is scored without them, and every set unseen in turn."""

import itertools
import json

import numpy as np
import pytest
import torch
from scipy.special import softmax

from helpers import zero_shot
from tlrun.cli.main import main
from tlrun.config.compose import compose
from tlrun.data.problems.label_space import AttributeFacts, facts_from_json
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.errors import ConfigError
from tlrun.methods.zero_shot.conse import ConSE
from tlrun.methods.zero_shot.eszsl import ESZSL
from tlrun.methods.zero_shot.held_out import groups_in_turn, sets_in_turn
from tlrun.methods.zero_shot.sae import SAE

torch.set_num_threads(1)


def test_groups_and_sets():
    groups = groups_in_turn(range(7), 2)
    assert len(groups) == 7
    counts = np.bincount([c for g in groups for c in g], minlength=7)
    assert counts.tolist() == [2] * 7
    assert groups == groups_in_turn(range(7), 2)
    assert len(groups_in_turn(range(40), 10)) == 8
    assert {c for g in groups_in_turn(range(40), 10) for c in g} == set(range(40))
    assert sets_in_turn(10, 2) == list(itertools.combinations(range(10), 2))
    assert len(sets_in_turn(50, 10)) == 100
    assert sets_in_turn(50, 10) == sets_in_turn(50, 10)


def unit(rows):
    scaled = rows / np.abs(rows).max(0)
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


def test_left_out_is_a_fit_without_the_classes():
    """Every pair, against numpy on the examples of the six other classes alone."""
    data = zero_shot.data(groups=zero_shot.EVERY, leave_out=2)
    method = ESZSL(gamma=0.01, lam=0.3)
    net = zero_shot.built(method, data)
    X, y, rows = zero_shot.train_arrays(data)
    test = data.role("source_test")
    T, t = test.read(torch.arange(len(test))).double().numpy(), test.labels.numpy()
    S = unit(rows)
    found = list(method.left_out(net, data))
    assert [left.test.held for left in found] == list(itertools.combinations(range(8), 2))
    for left in found[::5]:
        seen = [c for c in range(8) if c not in left.test.held]
        keep = np.isin(y, seen)
        centre = X[keep].mean(0)
        scale = np.sqrt(((X[keep] - centre) ** 2).sum(1).mean())
        Z, Y = (X[keep] - centre) / scale, 2.0 * (y[keep][:, None] == np.array(seen)) - 1
        left_side = np.linalg.inv(Z.T @ Z + 0.01 * len(Z) * np.eye(10))
        right_side = np.linalg.inv(S[seen].T @ S[seen] + 0.3 * np.eye(6))
        V = left_side @ Z.T @ Y @ S[seen] @ right_side
        unseen = np.isin(t, left.test.held)
        wanted = (T[unseen] - centre) / scale @ V @ S.T
        np.testing.assert_allclose(left.test.unseen.scores.numpy(), wanted, atol=1e-6)
        assert left.test.unseen.labels.tolist() == t[unseen].tolist()
        assert not set(left.test.held) & {c for turn in left.turns for c in turn.held}


@pytest.mark.parametrize("kind", [ESZSL, SAE])
def test_unseen_classes_change_nothing_that_is_chosen_without_them(kind):
    """Other images of the pair: the same setting, the same γ turns, the same seen scores."""
    data, spoiled = (zero_shot.data(groups=zero_shot.EVERY, leave_out=2) for _ in range(2))
    for role in ("source_train", "source_val"):
        examples = spoiled.role(role)
        rows = torch.arange(len(examples)) if examples.rows is None else examples.rows
        examples.data[rows[examples.labels < 2]] += 100
    one, two = (
        next(iter(m.left_out(zero_shot.built(m, d), d)))
        for m, d in ((kind(), data), (kind(), spoiled))
    )
    torch.testing.assert_close(one.test.seen.scores, two.test.seen.scores)
    for a, b in zip(one.turns, two.turns, strict=True):
        torch.testing.assert_close(a.unseen.scores, b.unseen.scores)


def test_penalties_are_chosen_without_validation_classes():
    data = zero_shot.data(groups=zero_shot.NO_VALIDATION, noise=2.0)
    method = ESZSL()
    zero_shot.built(method, data)
    assert method.chosen in method.grid()
    again = ESZSL()
    again.load_state_dict(method.state_dict())
    assert again.chosen == method.chosen


def test_conse_without_a_class_leaves_it_out_of_the_softmax():
    data = zero_shot.data(groups=zero_shot.NO_VALIDATION)
    method = ConSE(top=3)
    net = zero_shot.built(method, data)
    turns = list(method.held_out(net, data))
    assert len(turns) == 6
    held = data.role("source_val")
    x = held.read(torch.arange(len(held))).double().numpy()
    weight, bias = (p.detach().double().numpy() for p in net["classifier"].out.parameters())
    _, _, rows = zero_shot.train_arrays(data)
    S = rows / np.abs(rows[:6]).max(0)
    middle = S[:6].mean(0)
    for turn in turns[:2]:
        p = np.zeros((len(x), 6))
        p[:, turn.others] = softmax((x @ weight.T + bias)[:, turn.others], axis=1)
        p[p < np.sort(p, axis=1)[:, -3:-2]] = 0
        f = p / p.sum(1, keepdims=True) @ S[:6] - middle
        s = S - middle
        cosine = f @ s.T / np.linalg.norm(f, axis=1)[:, None] / np.linalg.norm(s, axis=1)
        inside = np.isin(held.labels.numpy(), turn.held)
        np.testing.assert_allclose(turn.unseen.scores.numpy(), cosine[inside], atol=1e-5)


def test_a_run_over_every_pair(tmp_path, monkeypatch):
    """The bundled demonstration on a part of the digits: one command, a line for each set."""
    monkeypatch.chdir(tmp_path)
    words = ["experiment=bundled/zero_shot", "hydra.run.dir=run", "data.size=4", "report=none"]
    assert main([*words, "data.per_class=30", "method.gamma=0.01", "method.lam=1"]) == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    selected = summary["selected"]
    assert summary["headline"] == "unseen/accuracy"
    lines = (tmp_path / "run/unseen_sets.csv").read_text().splitlines()
    assert len(lines) == 46
    right = np.array([float(line.split(",")[1]) for line in lines[1:]])
    assert selected["unseen/accuracy"] == pytest.approx(right.mean(), abs=1e-6)
    assert selected["unseen/std"] == pytest.approx(right.std(ddof=1), abs=1e-5)
    assert (selected["unseen/worst"], selected["unseen/best"]) == pytest.approx(
        (right.min(), right.max()), abs=1e-6
    )
    assert selected["unseen/accuracy"] > selected["unseen/chance"] == 0.5
    (table,) = json.loads((tmp_path / "run/tables.json").read_text())
    assert len(table["rows"]) == 8
    (picture,) = json.loads((tmp_path / "run/pictures.json").read_text())
    values = np.array(picture["values"], dtype=float)
    np.testing.assert_array_equal(values, values.T)


def test_mistakes():
    def built(*words):
        cfg = compose(["experiment=bundled/zero_shot", *words])
        return build_data(cfg.data, Options(seed=0))

    with pytest.raises(ConfigError, match=r"data\.unseen=\[\]"):
        built("data.unseen=['6']")
    with pytest.raises(ConfigError, match="leave out 2 or more"):
        built("data.leave_out=7")
    data = built()
    with pytest.raises(ConfigError, match="method=eszsl or method=sae"):
        ConSE().phases(data)


def test_a_label_space_of_an_earlier_run_is_read():
    """It knows nothing of classes that are unseen in turn."""
    kept = zero_shot.data().facts.to_json()
    del kept["leave_out"]
    facts = facts_from_json(kept)
    assert isinstance(facts, AttributeFacts)
    assert facts.leave_out == 0
