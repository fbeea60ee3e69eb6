"""What a finished run is worth by its own selection rule. Reads a run folder; imports no torch."""

from __future__ import annotations

from typing import NamedTuple

from tlrun.evaluate.figures import finite
from tlrun.evaluate.selection import score
from tlrun.files.yaml_file import read_yaml
from tlrun.run_folder.run_dir import RunDir


class Score(NamedTuple):
    """value: None if no evaluation passed the guard, or the rule has no figure ("last")."""

    rule: str
    value: float | None
    target_test_accuracy: float | None  # by test labels: to be read, never to be optimised


def selected_score(run: RunDir) -> Score | None:
    """The rule's figure at the checkpoint it chose; None for a run that is not complete.

    Every rule's figure is the better the higher it is.
    """
    if run.read_status().get("state") != "completed" or not run.summary.is_file():
        return None
    summary = run.read_summary()
    rule = str(summary.get("selection_rule") or _rule_of(run))
    chosen = summary.get("selected") or {}
    value = None
    if rule != "last" and not summary.get("selection_fell_back"):
        value = next(
            (
                score(row, rule)
                for row in reversed(run.read_metrics())
                if row.get("split") == "eval"
                and row.get("step") == chosen.get("step")
                and score(row, rule) is not None
            ),
            None,
        )
    return Score(rule, finite(value), finite(chosen.get("target_test/accuracy")))


def _rule_of(run: RunDir) -> str:
    return str(read_yaml(run.config)["select"]["name"])
