"""From the same features, bf16 autocast changes neither the scores nor the losses of a method."""

import copy

import pytest
import torch

from helpers import half
from helpers.every_method import METHODS, session_of
from tlrun.data.problems.episodes import ClassTable, labels_of
from tlrun.methods.base import Progress
from tlrun.methods.query import Query, Support

CLOSE = {"rtol": 1e-3, "atol": 1e-3}


def phases(session):
    """Each phase, built and started; nothing is trained."""
    for phase in session.phases:
        session.method.build(phase, session.net, session.data)
        session.finish_build(session.net)
        session.method.start(phase, session.net, session.data)
        yield phase


def questions(session):
    """What `predict` is asked: images, and a query of the kind of data."""
    data = session.data
    if data.kind == "episodes":
        shape, examples = data.facts.train, data.stream_set("source")
        drawn = ClassTable(examples, shape, "source").draw("train", "source", 0)
        support, query = (
            data.preprocess(examples.read(index.flatten()))
            for index in drawn.split([shape.shot, shape.query], dim=1)
        )
        return [(query, Query(support=Support(support, labels_of(shape.way, shape.shot))))]
    asked = [Query(domain=domain) for domain in ("source", "target")]
    if data.kind == "tasks":
        asked = [Query(t.name, t.domain or t.name) for t in data.tasks.values()]
    sets = (data.role(f"{query.domain}_test") for query in asked)
    examples = next(found for found in sets if found is not None)
    x = data.preprocess(examples.read(torch.arange(0, len(examples), len(examples) // 24)))
    return [(x, query) for query in asked]


@pytest.mark.parametrize("name", METHODS)
def test_scores_and_losses_of_the_same_features(name, tmp_path):
    session = session_of(name, tmp_path / "run")
    trainer = session.trainer()
    for phase in phases(session):
        if trainer.total_steps(phase) > 0:
            batch = {key: stream.batch(1) for key, stream in trainer.open_streams(phase).items()}
            exact, losses = (losses_of(session, batch, phase, on) for on in (False, True))
            assert exact
            for key, value in losses.items():
                assert value.dtype == torch.float32, key
                torch.testing.assert_close(value, exact[key], **CLOSE, msg=key)
    asked = questions(session)
    for scale in (1.0, 30.0):  # unsure, and sure of itself
        found = []
        for on in (False, True):
            net, method = copy.deepcopy((session.net, session.method))
            half.same_features(net.eval(), scale)
            with torch.no_grad(), half.autocast(on):
                found.append([method.predict(net, x, query).scores for x, query in asked])
        for exact, scores in zip(*found, strict=True):
            assert exact.dtype == scores.dtype == torch.float32
            assert scores.isfinite().all()
            torch.testing.assert_close(scores, exact, **CLOSE)


def losses_of(session, batch, phase, on):
    """Of all updates of one step, on copies: nothing is optimised."""
    losses = {}
    net, method = copy.deepcopy((session.net, session.method))
    half.same_features(net.train())
    torch.manual_seed(0)
    updates = method.step(net, batch, phase, Progress(1, 4))
    while True:
        with half.autocast(on):
            update = next(updates, None)
        if update is None:
            return losses
        losses |= {f"{len(losses)} {name}": value for name, value in update.losses.items()}
