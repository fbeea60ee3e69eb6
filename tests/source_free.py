"""For tests of methods that adapt a model of the source in their last phase."""

from __future__ import annotations

from torch import Tensor

from tlrun.experiment.session import Session


def before_adapting(session: Session) -> dict[str, Tensor]:
    """Will hold the state of the net as the last phase finds it."""
    start, last = session.method.start, session.phases[-1].name
    kept: dict[str, Tensor] = {}

    def remember(phase, net, data):
        if phase.name == last:
            kept.update({k: v.clone() for k, v in net.state_dict().items()})
        start(phase, net, data)

    session.method.start = remember  # type: ignore[method-assign]
    return kept


def moved(session: Session, before: dict[str, Tensor]) -> set[str]:
    """Names of the tensors that differ from `before` by a bit."""
    return {k for k, v in session.net.state_dict().items() if not v.equal(before[k])}
