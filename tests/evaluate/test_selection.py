import math
import random
from dataclasses import asdict

import pytest

from tlrun.errors import ConfigError
from tlrun.evaluate import selection
from tlrun.evaluate.selection import (
    Guard,
    candidates,
    check_rule,
    eligible,
    regrets,
    resolve_min_effective_classes,
    rules,
    select_row,
    why_none,
)

IM = "information_maximization"
VALUE = f"validator/{IM}"


def row(step, value, source=0.9, used=9.0, oracle=None):
    return {
        "step": step,
        f"validator/{IM}": value,
        "source_val/accuracy": source,
        "target_val/effective_classes": used,
        "oracle/target_test_accuracy": oracle,
    }


def step_of(rows, rule=IM, **kwargs):
    chosen = select_row(rows, rule, Guard(10, **kwargs))
    return chosen["step"] if chosen else None


def test_the_best_value_wins_and_the_later_of_equals():
    assert step_of([row(1, 0.5), row(2, 0.9), row(3, 0.7)]) == 2
    assert step_of([row(1, 0.9), row(2, 0.9), row(3, 0.7)]) == 2


def test_a_source_that_was_forgotten_is_guarded_out():
    """The floor is relative to the best of all rows: early rows know no mercy either."""
    rows = [row(1, 3.0, source=0.5), row(2, 0.4, source=0.98), row(3, 2.0, source=0.85)]
    assert step_of(rows) == 2
    assert eligible(rows, Guard(10)) == [False, True, False]
    assert step_of(rows, source_floor=0.8) == 3
    assert step_of(rows, source_floor=0.5) == 1


def test_a_row_at_the_limit_passes_in_floating_point_too():
    """9 of 13 right are 0.9 times 10 of 13, and two classes used alike are two."""
    assert 0.9 * (10 / 13) > 9 / 13  # in double precision
    rows = [row(1, 2.0, source=9 / 13), row(2, 1.0, source=10 / 13), row(3, 3.0, source=8 / 13)]
    assert step_of(rows) == 1
    assert [found["step"] for found in candidates(rows, IM, Guard(10))] == [1, 2]
    used = math.exp(-2 * 0.5 * math.log(0.5)) - 1e-7  # as single precision has it
    assert eligible([row(1, 1.0, used=used)], Guard(3)) == [True]
    assert eligible([row(1, 1.0, used=1.99)], Guard(3)) == [False]


def test_a_row_before_the_first_update_is_chosen_by_no_rule():
    untrained = {**row(0, 9.0, used=10.0, oracle=0.9), "phase_step": 0}
    rows = [untrained, {**row(5, 1.0, oracle=0.5), "phase_step": 5}]
    assert eligible(rows, Guard(10)) == [False, True]
    for rule in (IM, "oracle", "last"):
        assert step_of(rows, rule) == 5
    assert regrets(rows, Guard(10)) == {IM: 0.0, "last": 0.0}
    assert step_of([untrained]) is None
    assert step_of([row(0, 9.0)]) == 0  # a phase of no steps has no phase_step


def test_photographs_to_sketches():
    """The trained net uses 2.8 to 3.2 of 7 classes, the untrained one 4.3 at 8.9 % of the source:
    it was selected at "step 0 of 150", 11.6 % on the target where the last step had 24."""
    rows = [{**row(0, 0.01, source=0.089, used=4.3), "phase_step": 0}]
    for k, used in enumerate([2.8, 3.0, 3.2, 3.1], start=1):
        rows.append({**row(50 * k, 0.5, source=0.6, used=used), "phase_step": 50 * k})
    assert select_row(rows, IM, Guard(7)) is None
    assert selection.choices(rows, Guard(7))[IM]["step"] == 200
    assert why_none(rows, IM, Guard(7)) == (
        f"no evaluation of 4 passed the guard of {IM}: 4 in too few classes (at most 3.2 "
        "effective ones, where 4.0 of 7 are asked for)"
    )


def effective(*counts):
    shares = [count / sum(counts) for count in counts]
    return math.exp(-sum(p * math.log(p) for p in shares))


@pytest.mark.parametrize(
    ("classes", "spaces", "counts", "passes"),
    [
        (2, "shared", (100,), False),  # collapsed: 0.5 * 2 = 1 class would pass
        (2, "shared", (97, 3), False),
        (2, "shared", (80, 20), True),  # an unbalanced target: 1.65 effective classes
        (2, "shared", (1, 1), True),
        (2, "partial", (100,), False),
        (7, "shared", (33, 33, 33, 1), False),
        (10, "shared", (1, 1, 1, 1, 1), False),
        (10, "shared", (3, 2, 2, 2, 2, 1, 1, 1), True),
        (10, "partial", (1, 1, 1, 1, 1), True),
        (10, "partial", (1194, 1005, 731, 658, 652), True),  # USPS 0 to 4: 4.85
        (10, "partial", (40, 25, 20, 10, 5), True),
        (10, "partial", (1, 1), False),
        (31, "partial", (1,) * 10, True),  # Office-31 -> Office-Caltech
        (65, "partial", (1,) * 25, True),  # Office-Home
        (6, "open", (50, 10, 10, 10, 10, 10), True),
    ],
)
def test_collapse_is_told_from_what_a_right_model_does(classes, spaces, counts, passes):
    share = resolve_min_effective_classes("auto", spaces)
    rows = [row(1, 1.0, used=effective(*counts))]
    assert eligible(rows, Guard(classes, min_effective_classes=share)) == [passes]
    assert (why_none(rows, IM, Guard(classes, min_effective_classes=share)) == "") is False


def test_the_limit_on_classes():
    def least(classes, share):
        return Guard(classes, min_effective_classes=share).least_effective_classes

    assert [least(k, 0.5) for k in (1, 2, 7, 10)] == [1.0, 1.5, 4.0, 5.5]
    assert least(10, 0) == 1  # which every model has: no guard
    assert least(10, 1) == 10
    assert resolve_min_effective_classes("auto") == 0.5
    assert resolve_min_effective_classes(0.7, "partial") == 0.7


def test_the_guard_of_a_summary_is_read_and_never_guessed():
    guard = Guard(7, source_floor=0.0, min_effective_classes=0.2)
    assert Guard.from_summary({"selection_guard": asdict(guard)}) == guard
    for summary in ({}, {"selection_guard": None}, {"selection_guard": {"num_classes": 7}}):
        assert Guard.from_summary(summary) is None


def steps(found):
    return [row["step"] for row in found]


def waiting(rows, **kwargs):
    return steps(candidates(rows, IM, Guard(10, **kwargs)))


def test_who_may_still_win():
    rows = [
        row(1, 0.9, source=0.60),  # out: 4 has shown that the source can be learned far better
        row(2, 0.8, source=0.71),
        row(3, 0.7, source=0.70),  # out: 2 is better in both
        row(4, 0.6, source=0.75),
        row(5, 0.6, source=0.73),  # later than 4 and as good in score, but forgets more
        row(6, 0.5, source=0.75, used=3.0),  # out: collapsed
    ]
    assert waiting(rows) == [2, 5, 4]
    assert waiting([*rows, row(7, 0.1, source=0.80)]) == [5, 4, 7]
    assert waiting([*rows, row(7, 0.9, source=0.80)]) == [7]
    assert steps(candidates([*rows, row(7, 0.1, oracle=0.5)], "oracle", Guard(10))) == [7]


def test_who_is_above_the_highest_possible_floor_waits_for_nobody():
    """No accuracy exceeds 1, so 0.9 of the best is at most 0.9: one candidate, as on easy data."""
    assert waiting([row(1, 0.9, source=0.90), row(2, 0.8, source=0.97)]) == [1]
    assert step_of([row(1, 0.9, source=0.90), row(2, 0.8, source=1.0)]) == 1


def random_rows(chance, count):
    return [
        row(
            k,
            chance.choice([None, *range(5)]),
            source=chance.choice([None, *(x / 20 for x in range(8, 20))]),
            used=chance.choice([1.0, 9.0, 9.0]),
        )
        for k in range(count)
    ]


def test_candidates_kept_while_training_are_enough_for_the_choice_over_all_rows():
    """Against the definition: the best of the rows that pass, the later one of equals."""
    chance = random.Random(0)
    for _ in range(300):
        rows = random_rows(chance, 12)
        kept = set()
        for k in range(len(rows)):
            now = set(waiting(rows[: k + 1]))
            assert now <= kept | {k}  # who is out never comes back
            kept = now
        allowed = eligible(rows, Guard(10))
        passing = [r for r, ok in zip(rows, allowed, strict=True) if ok and r[VALUE] is not None]
        best = max(passing, key=lambda r: (r[VALUE], r["step"]), default=None)
        assert step_of(rows) == (best["step"] if best else None)
        assert best is None or best["step"] in kept


def test_few_wait_even_if_every_row_might_win():
    rows = [row(k, -k, source=0.5 + k / 1000) for k in range(40)]
    front = waiting(rows)
    assert len(front) == selection.MOST_CANDIDATES
    assert front[0] == 0  # the choice so far
    assert front[-1] == 39  # what no floor can reach
    for k in range(40):
        assert len(waiting(rows[:k])) <= selection.MOST_CANDIDATES


def test_the_candidate_that_another_can_stand_for_goes(monkeypatch):
    monkeypatch.setattr(selection, "MOST_CANDIDATES", 3)
    rows = [row(k, -k, source=s) for k, s in enumerate([0.50, 0.53, 0.535, 0.55])]
    assert waiting(rows) == [0, 1, 3]


def test_why_no_row_was_chosen():
    assert why_none([row(1, None)], IM, Guard(10)) == f"no evaluation has a value for {IM}"
    rows = [row(1, 1.0, source=0.3), row(2, 1.0, source=0.9, used=2.0)]
    assert why_none(rows, IM, Guard(10)) == (
        f"no evaluation of 2 passed the guard of {IM}: 1 in too few classes (at most 2.0 "
        "effective ones, where 5.5 of 10 are asked for), 1 with the source forgotten (at most "
        "30.0 % right, where 81.0 % are asked for)"
    )


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
    found = regrets(rows, Guard(10))
    assert found == pytest.approx({IM: 0.2, "mine": 0.0, "last": 0.7})
    assert regrets(rows, Guard(10, min_effective_classes=0))[IM] == pytest.approx(0.7)


def test_regrets_where_the_guard_leaves_nothing_are_those_of_the_last_row():
    rows = [row(1, 0.9, used=1.0, oracle=0.8), row(2, 0.1, used=1.0, oracle=0.5)]
    assert regrets(rows, Guard(10)) == pytest.approx({IM: 0.3, "last": 0.3})


def test_no_regrets_without_an_oracle():
    assert regrets([row(1, 0.5), row(2, 0.6)], Guard(10)) == {}
    assert regrets([], Guard(10)) == {}
    measured_once = [row(1, 0.5, oracle=0.4), row(2, 0.6)]
    # The rows that the rules choose have no figure
    assert regrets(measured_once, Guard(10)) == {}
