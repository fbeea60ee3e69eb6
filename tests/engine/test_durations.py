"""How long a phase is and what is due when."""

from tlrun.engine.durations import Cadence

DEFAULTS = {"eval_every": None, "checkpoint_every": None, "log_every": None}


def due(cadence, kind):
    return [done for done in range(1, cadence.total + 1) if getattr(cadence, kind)(done)]


def test_by_default_there_are_a_hundred_rows_and_twenty_evaluations_with_a_checkpoint_each():
    cadence = Cadence.of(DEFAULTS, total=1000)
    assert len(due(cadence, "logs")) == 100
    assert len(due(cadence, "evaluates")) == 20
    assert due(cadence, "saves") == due(cadence, "evaluates")


def test_after_the_last_step_all_is_due():
    cadence = Cadence.of({"eval_every": 4, "checkpoint_every": 3, "log_every": 50}, total=10)
    assert due(cadence, "evaluates") == [4, 8, 10]
    assert due(cadence, "saves") == [3, 6, 9, 10]
    assert due(cadence, "logs") == [10]


def test_a_short_budget_is_evaluated_every_25_steps_but_a_phase_of_its_own_length_20_times():
    assert due(Cadence.of(DEFAULTS, total=50), "evaluates") == [25, 50]
    assert due(Cadence.of(DEFAULTS, total=60), "saves") == [25, 50, 60]
    assert due(Cadence.of(DEFAULTS, total=10), "evaluates") == [10]
    assert len(due(Cadence.of(DEFAULTS, total=500), "evaluates")) == 20
    assert len(due(Cadence.of(DEFAULTS, total=100, own_length=True), "evaluates")) == 20
    often = {**DEFAULTS, "eval_every": 5}
    assert due(Cadence.of(often, total=20), "evaluates") == [5, 10, 15, 20]


def test_a_phase_of_one_step():
    cadence = Cadence.of(DEFAULTS, total=1)
    assert [due(cadence, kind) for kind in ("logs", "evaluates", "saves")] == [[1]] * 3
