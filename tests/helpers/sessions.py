"""Sessions in the middle: one that pauses at a step, one that is killed and resumed, what moved."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from helpers import small
from helpers.hooks import Crash
from tlrun.config.build import plain
from tlrun.engine.hooks import Hooks
from tlrun.experiment.assemble import open_session
from tlrun.experiment.auto import resolve_auto
from tlrun.experiment.session import Session
from tlrun.methods.base import Progress, Update
from tlrun.run_folder.run_dir import RunDir

SOURCE_STEPS = 3
FEW = (
    "method=finetune",
    "target_labels=2",
    f"phases.source.steps={SOURCE_STEPS}",
    "backbone.dropout=0",
)


def paused(folder, *options: str, at: int = SOURCE_STEPS) -> tuple[Session, Any]:
    """(session, batch): before global step `at`, by default the first of the target phase."""
    session = small.session(folder, *FEW, *options)
    caught = []

    def stop(step):
        if step.global_step == at:
            caught.append(step.batch)
            raise Crash

    with pytest.raises(Crash):
        session.trainer(Hooks(before_step=stop)).fit()
    return session, caught[0]


def update_of(session: Session, batch) -> Update:
    """The method's update with the losses of all terms in it."""
    update = next(session.method.step(session.net, batch, session.phases[-1], Progress(0, 10)))
    for term in session.terms.values():
        update.losses.update(term.loss(update, session.net))
    return update


def shaken(session: Session, size: float = 0.05) -> dict[str, torch.Tensor]:
    """Move all weights at random; returns what they were."""
    before = {name: p.detach().clone() for name, p in session.net.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in session.net.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return before


def gradients(session: Session, batch) -> dict[str, torch.Tensor]:
    """The gradients of one update as the engine makes it: backward, then `grad_` of the terms."""
    session.net.zero_grad(set_to_none=True)
    update = update_of(session, batch)
    sum(update.losses.values()).backward()
    for term in session.terms.values():
        term.grad_(session.net)
    return {n: p.grad.clone() for n, p in session.net.named_parameters() if p.grad is not None}


def resumed_equals_straight(folder, *options: str, at: int = SOURCE_STEPS + 3) -> None:
    """Kill before step `at`, resume, and compare weights and rows with a straight run."""
    overrides = (*FEW, "trainer.steps=5", "trainer.checkpoint_every=2", "trainer.eval_every=2")
    straight = small.session(folder / "straight", *overrides, *options)
    straight.trainer().fit()
    paused(folder / "broken", *overrides, *options, at=at)
    torch.rand(3)  # another process has other random states
    resumed = reopened(folder / "broken", *overrides, *options)
    resumed.trainer().fit()
    ours, theirs = straight.net.state_dict(), resumed.net.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert rows(straight) == rows(resumed)


def reopened(folder, *options: str) -> Session:
    """The session that a new process would build over the same run folder."""
    return open_session(RunDir(folder), plain(resolve_auto(small.composed(*options))))


def rows(session: Session) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without their time, which no two runs share."""
    return [{k: v for k, v in row.items() if k != "time"} for row in session.run_dir.read_metrics()]


def copy_of(session: Session):
    """The net alone, in eval mode and without the hooks of terms."""
    net = copy.deepcopy(session.net).eval()
    for module in net.modules():
        module._forward_hooks.clear()
    return net


def before_adapting(session: Session) -> dict[str, torch.Tensor]:
    """An empty dict that will hold the state of the net as the last phase finds it."""
    start, last = session.method.start, session.phases[-1].name
    state: dict[str, torch.Tensor] = {}

    def record_and_start(phase, net, data):
        if phase.name == last:
            state.update({k: v.clone() for k, v in net.state_dict().items()})
        start(phase, net, data)

    session.method.start = record_and_start  # type: ignore[method-assign]
    return state


def moved(session: Session, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of the tensors that differ from `before` by a bit."""
    return {k for k, v in session.net.state_dict().items() if not v.equal(before[k])}
