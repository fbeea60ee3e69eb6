"""The state of a command: its own, and none without a command."""

from __future__ import annotations

from pathlib import Path

from tlrun.sweep.state import current_sweep, sweep_state


def test_every_command_has_a_state_of_its_own() -> None:
    assert current_sweep() is None
    with sweep_state(began=1.0) as outer:
        assert current_sweep() is outer
        outer.folder = Path("sweep")
        with sweep_state() as inner:  # `tlrun resume SWEEP_DIR` gives commands within a command
            assert current_sweep() is inner
            assert (inner.began, inner.folder, inner.failures) == (None, None, [])
        assert current_sweep() is outer
    assert current_sweep() is None
