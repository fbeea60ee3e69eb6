import pytest

from tlrun.errors import ConfigError
from tlrun.evaluate.selection import check_rule, eligible, regrets, rules, select_row

IM = "information_maximization"


def row(step, value, source=0.9, used=9.0, oracle=None):
    return {
        "step": step,
        f"validator/{IM}": value,
        "source_val/accuracy": source,
        "target_val/effective_classes": used,
        "oracle/target_test_accuracy": oracle,
    }


def step_of(rows, rule=IM, **kwargs):
    found = select_row(rows, rule, num_classes=10, **kwargs)
    return found["step"] if found else None


def test_the_best_value_wins_and_the_later_of_equals():
    assert step_of([row(1, 0.5), row(2, 0.9), row(3, 0.7)]) == 2
    assert step_of([row(1, 0.9), row(2, 0.9), row(3, 0.7)]) == 2


def test_a_source_that_was_forgotten_is_guarded_out():
    """The floor is relative to the best so far, so early rows are judged by what was known then."""
    rows = [row(1, 0.3, source=0.5), row(2, 0.4, source=0.98), row(3, 2.0, source=0.85)]
    assert step_of(rows) == 2
    assert eligible(rows, 10) == [True, True, False]
    assert step_of(rows, source_floor=0.8) == 3


def test_a_collapse_into_few_classes_is_guarded_out():
    rows = [row(1, 0.4), row(2, 2.0, used=4.9)]
    assert step_of(rows) == 1
    assert step_of(rows, min_effective_classes=0.4) == 2


def test_rows_without_the_guards_figures_pass():
    rows = [{"step": 1, f"validator/{IM}": 0.1}, {"step": 2, f"validator/{IM}": 0.2}]
    assert step_of(rows) == 2


def test_missing_and_broken_values_choose_nothing():
    rows = [row(1, None), row(2, float("nan"))]
    assert step_of(rows) is None
    assert step_of([*rows, row(3, -1.0)]) == 3
    assert step_of([row(1, 1.0, used=1.0)]) is None
    assert step_of([]) is None
    assert step_of([], "last") is None


def test_last_and_oracle_are_not_guarded():
    rows = [
        row(1, 0.5, oracle=0.8),
        row(2, 0.4, oracle=0.9, used=1.0),
        row(3, 0.3, oracle=0.7, source=0.1),
    ]
    assert step_of(rows, "oracle") == 2
    assert step_of(rows, "last") == 3
    assert step_of([row(1, 0.5)], "oracle") is None


def test_rules_are_the_validators_last_and_oracle():
    assert {IM, "bnm", "snd", "entropy", "source_accuracy", "last", "oracle"} <= set(rules())
    check_rule(IM)
    with pytest.raises(ConfigError, match="did you mean 'information_maximization'"):
        check_rule("information_maximisation")


def test_regrets_by_hand():
    """The rule is misled at step 3, the guard hides step 4 alone; bnm has no value anywhere."""
    rows = [
        row(1, 0.5, oracle=0.6),
        {**row(2, 0.7, oracle=0.9), "validator/mine": -3.0},
        {**row(3, 0.8, oracle=0.7), "validator/mine": -4, "validator/bnm": None},
        row(4, 2.0, oracle=0.2, used=1.0),
    ]
    found = regrets(rows, 10)
    assert found == pytest.approx({IM: 0.2, "mine": 0.0, "last": 0.7})
    assert regrets(rows, 10, min_effective_classes=0)[IM] == pytest.approx(0.7)


def test_regrets_where_the_guard_leaves_nothing_are_those_of_the_last_row():
    rows = [row(1, 0.9, used=1.0, oracle=0.8), row(2, 0.1, used=1.0, oracle=0.5)]
    assert regrets(rows, 10) == pytest.approx({IM: 0.3, "last": 0.3})


def test_no_regrets_without_an_oracle():
    assert regrets([row(1, 0.5), row(2, 0.6)], 10) == {}
    assert regrets([], 10) == {}
    measured_once = [row(1, 0.5, oracle=0.4), row(2, 0.6)]
    assert regrets(measured_once, 10) == {}  # the rows that the rules choose have no figure
