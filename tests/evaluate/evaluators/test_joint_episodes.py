"""Base and novel classes in one classifier: prototypes and figures by hand, what is held back."""

import logging

import numpy as np
import pytest
import torch

from helpers import small
from tlrun.config.compose import compose
from tlrun.data.problems.episodes import ClassTable, held_back
from tlrun.data.problems.label_space import Shape
from tlrun.errors import ConfigError
from tlrun.evaluate.evaluators.joint_episodes import BaseClasses, joint_accuracies
from tlrun.experiment.evaluate import evaluate
from tlrun.experiment.start import create_run_folder, run_experiment
from tlrun.methods.few_shot.baseline_pp import BaselinePP, CosineHead
from tlrun.methods.few_shot.protonet import ProtoNet
from tlrun.methods.few_shot.simple_shot import Centre, SimpleShot

SHORT = (
    "data=digits_episodes",
    "data.tests=[[5,1]]",
    "data.query=5",
    "data.val_episodes=5",
    "data.test_episodes=20",
    "data.base_test=0.25",
)
Y = torch.tensor([0, 1, 2, 2])
KEY = "few_shot/5way_1shot_joint"


def features():
    generator = torch.Generator().manual_seed(2)
    return (torch.randn(2, n, 5, generator=generator) for n in (3, 4))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_protonet_measures_to_base_means_and_new_means():
    query, support = features()
    known, labels = torch.randn(6, 5), torch.tensor([0, 0, 0, 1, 1, 1])
    method = ProtoNet(scale=0.5)
    base = method.base_prototypes(None, known, labels)
    scores = method.joint_scores(None, query, support, Y, base)
    assert scores.shape == (2, 3, 5)
    means = [known[:3].mean(0), known[3:].mean(0)]
    for e in range(2):
        every = torch.stack([*means, *(support[e, k == Y].mean(0) for k in range(3))])
        wanted = -0.5 * (query[e][:, None] - every).square().sum(2)
        assert torch.allclose(scores[e], wanted, atol=1e-4)
    new = method.classify(None, query, support, Y)
    assert torch.allclose(scores[:, :, 2:], new, atol=1e-4)


def test_simple_shot_centres_all_of_them():
    query, support = features()
    known, labels = torch.randn(6, 5), torch.tensor([0, 0, 0, 1, 1, 1])
    net = {"centre": Centre(5)}
    net["centre"].mean.fill_(0.2)
    method = SimpleShot()
    scores = method.joint_scores(net, query, support, Y, method.base_prototypes(net, known, labels))
    q, s, b = (unit(x.numpy() - 0.2) for x in (query[0], support[0], known))
    every = [b[:3].mean(0), b[3:].mean(0), s[0], s[1], s[2:].mean(0)]
    wanted = -((q[:, None] - np.stack(every)) ** 2).sum(2)
    np.testing.assert_allclose(scores[0].numpy(), wanted, atol=1e-5)


def test_baseline_pp_has_its_trained_weights_beside_imprinted_ones():
    query, support = features()
    net = {"classifier": CosineHead(5, 2, 3.0)}
    method = BaselinePP(scale=3.0, fit_steps=0)
    base = method.base_prototypes(net, torch.randn(6, 5), torch.zeros(6))
    scores = method.joint_scores(net, query, support, Y, base)
    s = unit(support[0].numpy())
    every = [*net["classifier"].weight.detach().numpy(), s[0], s[1], s[2:].mean(0)]
    wanted = 3.0 * unit(query[0].numpy()) @ unit(np.stack(every)).T
    np.testing.assert_allclose(scores[0].numpy(), wanted, atol=1e-5)


class Scripted(ProtoNet):
    """Takes every query for the first base class but those of the first new one."""

    def joint_scores(self, net, query, support, y, base):
        scores = torch.zeros(*query.shape[:2], len(base) + 3)
        scores[:, :, 0] = 1
        scores[:, :2, len(base)] = 2  # the first two queries: of the first new class
        return scores


def test_the_four_figures_by_hand():
    base = BaseClasses(torch.zeros(2, 4), torch.zeros(6, 4), torch.tensor([0, 0, 0, 0, 0, 1]))
    examples = small_set(30)
    table = ClassTable(examples, Shape(3, 1, 2), "novel classes")
    found = joint_accuracies(Scripted(), None, base, torch.zeros(30, 4), table, range(4), 3)
    # of 6 novel queries 2 are right, of the 6 base queries the 5 of class 0
    third, most = 2 / 6, 5 / 6
    wanted = [most, third, (third + most) / 2, 2 * third * most / (third + most)]
    for values, value in zip(found.values(), wanted, strict=True):
        assert values.tolist() == pytest.approx([value] * 4)


def small_set(count):
    from tlrun.data.examples.image_set import ImageSet

    pixels = torch.zeros(count, 1, 2, 2, dtype=torch.uint8)
    return ImageSet("novel", pixels, torch.arange(count) % 3, list("abc"))


def test_a_share_of_each_class_is_held_back():
    examples = small_set(30)
    kept, held = held_back(examples, 0.2, seed=0)
    assert torch.bincount(kept.labels).tolist() == [8, 8, 8]
    assert torch.bincount(held.labels).tolist() == [2, 2, 2]
    assert held_back(examples, 0.0, seed=0) == (examples, None)
    with pytest.raises(ConfigError, match="has one image; it needs two"):
        held_back(small_set(3), 0.5, seed=0)


@pytest.mark.parametrize("name", ["protonet", "baseline_pp", "simple_shot"])
def test_a_run_has_the_figures_and_an_evaluation_the_same(name, tmp_path):
    words = [*small.QUICK, *SHORT, f"method={name}", "trainer.eval_every=6", "report=none"]
    run_dir = create_run_folder(compose(words), tmp_path / "run", words)
    selected = run_experiment(run_dir)["selected"]
    values = [selected[f"{KEY}_{part}/accuracy"] for part in ("base", "novel", "both")]
    assert values[2] == pytest.approx((values[0] + values[1]) / 2)
    assert 0 <= selected[f"{KEY}/harmonic_mean"] <= min(1, max(values))
    assert selected[f"{KEY}/ci95"] > 0
    again = evaluate(run_dir.path)
    assert again[f"{KEY}_both/accuracy"] == selected[f"{KEY}_both/accuracy"]


def test_base_classes_are_known_after_training(tmp_path):
    session = small.session(
        tmp_path / "run", *SHORT, "backbone.width=0.25", "trainer.steps=60", "trainer.eval_every=60"
    )
    session.trainer().fit()
    with torch.no_grad():
        figures = session.evaluator.test(session.net.eval())[0]
    base, novel = (figures[f"{KEY}_{part}/accuracy"] for part in ("base", "novel"))
    assert base > 0.5  # of 8 base and 5 novel classes: chance is 1 in 13
    assert novel > 2 / 13


def test_a_method_without_prototypes_says_so(tmp_path, caplog):
    session = small.session(tmp_path / "run", *SHORT, "method=baseline")
    session.build_all()
    with torch.no_grad(), caplog.at_level(logging.WARNING, logger="tlrun"):
        figures = session.evaluator.test(session.net.eval())[0]
    assert "no prototypes of base classes" in caplog.text
    assert not any("joint" in key for key in figures)
