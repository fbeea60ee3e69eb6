"""Co-Tuning: the relation between the classes, and the loss of the source's head."""

import pytest
import torch

from helpers import sessions
from tlrun.methods.base import DomainOutput, Update
from tlrun.methods.terms.co_tuning import CoTuning, relation

TERM = "terms=[co_tuning]"


def test_the_relation_is_the_mean_answer_for_each_class():
    p = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    found = relation(p, torch.tensor([0, 0, 2]), 3)
    assert torch.allclose(found, torch.tensor([[0.7, 0.3], [0.5, 0.5], [0.2, 0.8]]))


def test_the_relation_comes_from_the_net_at_the_start(tmp_path):
    session, _ = sessions.paused(tmp_path / "run", TERM, "terms.co_tuning.temperature=2")
    net, examples = sessions.copy_of(session), session.data.role("target_train")
    x = session.data.preprocess(examples.read(torch.arange(len(examples))))
    p = (net(x).logits / 2).softmax(1)
    expected = torch.stack([p[examples.labels == k].mean(0) for k in range(10)])
    assert torch.allclose(session.terms["co_tuning"].relation, expected, atol=1e-6)


def test_the_loss_is_the_cross_entropy_with_the_row_of_the_label():
    term = CoTuning(weight=0.5)
    term.relation, term.head = torch.rand(4, 4).softmax(1), "classifier"
    logits, y = torch.randn(6, 4), torch.randint(4, (6,))
    update = Update({}, outputs={"target": DomainOutput(logits, logits, logits, y)})

    class Net:
        main_head = "classifier"

    (value,) = term.loss(update, Net).values()
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    expected = -sum(float((term.relation[k] * log_p[i]).sum()) for i, k in enumerate(y)) / 6
    assert float(value) == pytest.approx(0.5 * expected, rel=1e-5)


def test_the_source_head_learns_and_follows_the_relation(tmp_path):
    """The published idea at small scale: the old head's answers for a class tend to its row."""

    def distance(weight):
        session, batch = sessions.paused(
            tmp_path / f"{weight}",
            TERM,
            f"terms.co_tuning.weight={weight}",
            "trainer.steps=60",
            at=62,
        )
        x, y = batch["target"].x, batch["target"].y
        wanted = session.terms["co_tuning"].relation[y]
        answers = sessions.copy_of(session)(x).logits.detach().softmax(1)
        return float((answers - wanted).abs().mean())

    assert distance(50.0) < 0.7 * distance(0.0)


def test_kill_and_resume(tmp_path):
    sessions.resumed_equals_straight(tmp_path, TERM)
