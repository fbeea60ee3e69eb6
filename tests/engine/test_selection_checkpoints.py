"""Which evaluations may still be chosen, as training goes on: each row is looked at once."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tlrun.engine.selection_checkpoints import SelectionCheckpoints
from tlrun.evaluate import selection

RULES = ["information_maximization", "oracle"]
GUARD = selection.Guard(num_classes=10)


def rows_of(count: int, seed: int) -> list[dict[str, Any]]:
    draw = random.Random(seed)
    return [
        {
            "step": step,
            "phase": draw.choice(["source", "target"]),
            selection.SOURCE: draw.choice([None, draw.random()]),
            "validator/information_maximization": draw.choice([None, round(draw.random(), 1)]),
            "oracle/target_test/accuracy": draw.random(),
        }
        for step in range(count)
    ]


def of_phase(rows: list[dict[str, Any]], rule: str) -> list[dict[str, Any]]:
    """As of two phases of which the last one competes."""
    return [row for row in rows if row["phase"] == "target"]


def watch(log: Any) -> SelectionCheckpoints:
    setup: Any = SimpleNamespace(
        run_dir=SimpleNamespace(checkpoints=Path("nowhere")),
        rules=RULES,
        guard=GUARD,
        competing=of_phase,
        choose=None,
    )
    return SelectionCheckpoints(setup, log)


def anew(rows: list[dict[str, Any]]) -> set[int]:
    """Of all rows at once."""
    found = [selection.candidates(of_phase(rows, rule), rule, GUARD) for rule in RULES]
    return {row["step"] for of_rule in found for row in of_rule}


@pytest.mark.parametrize("seed", range(5))
def test_row_by_row_is_the_same_as_all_at_once_after_a_resume_too(seed: int) -> None:
    log: Any = SimpleNamespace(rows=[])
    checkpoints = watch(log)
    rows = rows_of(60, seed)
    for number, row in enumerate(rows):
        if number == 30:
            log.rows = list(rows[:20])  # those after its checkpoint were cut off
            log.rows += rows[20:30]
        log.rows.append(row)
        if number % 3:
            assert checkpoints.waiting() == anew(rows[: number + 1])


def test_an_evaluation_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    score = selection.score

    def counted(row: Any, rule: str) -> float | None:
        looked.append(row["step"])
        return score(row, rule)

    monkeypatch.setattr(selection, "score", counted)
    log: Any = SimpleNamespace(rows=[])
    checkpoints = watch(log)
    for row in rows_of(300, 0):
        log.rows.append({**row, "phase": "target"})
        checkpoints.waiting()
    assert len(looked) <= 300 * 3  # one for a validator, for oracle the best beside the new one
