"""From the same features, bf16 autocast does not change what a term adds."""

import copy

import pytest
import torch

from helpers import half, sessions, small
from tlrun.config.packaged import conf_dir
from tlrun.methods.base import Progress
from tlrun.methods.terms.memory import FrozenCopy
from tlrun.models.ema import EmaTeacher

TERMS = sorted(path.stem for path in (conf_dir() / "terms").glob("*.yaml"))
OF_BOTH_DOMAINS = ("coral", "mmd")
REMEMBERS = ("bi_tuning",)  # what earlier batches were
NO_LOSS = ("ewc", "l2_sp", "stoch_norm")  # gradients and metrics; a hook in the backbone


def started(folder, name):
    """(session, batch) where the term has started and its first update is due."""
    if name not in OF_BOTH_DOMAINS:
        return sessions.paused(folder, f"terms=[{name}]")
    session = small.session(folder, "method=dann", f"terms=[{name}]")
    (phase,) = session.phases
    session.method.build(phase, session.net, session.data)
    session.finish_build(session.net)
    streams = session.trainer().open_streams(phase)
    return session, {key: stream.batch(0) for key, stream in streams.items()}


@pytest.mark.parametrize("name", TERMS)
def test_a_term_of_the_same_features(name, tmp_path):
    session, batch = started(tmp_path / "run", name)
    net, term = session.net.train(), session.terms[name]
    sessions.shaken(session)  # away from the start, which costs nothing
    kept = [value.of(net) for value in vars(term).values() if isinstance(value, FrozenCopy)]
    kept += [value for value in vars(term).values() if isinstance(value, EmaTeacher)]
    for one in (net, *kept):
        half.same_features(one)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    if name in REMEMBERS:
        update = next(session.method.step(net, batch, session.phases[-1], Progress(0, 10)))
        term.loss(update, net)
        seen = copy.deepcopy(term.state_dict())
    found = []
    for on in (False, True):
        net.load_state_dict(state)  # the first pass has moved the running statistics
        if name in REMEMBERS:
            term.load_state_dict(copy.deepcopy(seen))
        torch.manual_seed(0)
        with half.autocast(on):
            update = next(session.method.step(net, batch, session.phases[-1], Progress(0, 10)))
            losses = term.loss(update, net)
        found.append(losses | {k: torch.as_tensor(v) for k, v in update.metrics.items()})
        assert (name in losses) != (name in NO_LOSS)
    exact, losses = found
    for key, value in losses.items():
        assert value.isfinite()
        torch.testing.assert_close(value, exact[key], rtol=1e-3, atol=1e-6, msg=key)
