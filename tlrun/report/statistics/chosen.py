"""Which setting of each method would the rule of selection choose? No target test label decides.

Where a method was run with several settings, the one with the highest mean of the selector's value
(at the selected checkpoints, over seeds) is the method's result; the one with the best test figure
stands beside it, to show what the choice lost. Values of one rule compare within a method only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlrun.evaluate.selection import score, sees_target_labels
from tlrun.report.read.run_record import RunRecord
from tlrun.report.statistics.groups import FigureRow, Group, mean_of


@dataclass(frozen=True)
class Choice:
    """value: the mean of the selector's; lost: of the figure, against the best; of: how many."""

    rule: str
    value: float
    chosen: FigureRow
    best: FigureRow
    lost: float
    of: int

    @property
    def settings(self) -> str:
        return _settings(self.chosen.group)

    @property
    def best_settings(self) -> str:
        return _settings(self.best.group)


def selector_value(job: RunRecord) -> float | None:
    """The value of the job's own rule at its selected checkpoint.

    None for rules that see target labels or have no value ("last"), and where the rule found no
    checkpoint.
    """
    rule = str(job.summary.get("selection_rule"))
    if sees_target_labels(rule) or job.summary.get("selection_fell_back"):
        return None
    step = job.selected_at
    rows = [row for row in job.evaluations if row.get("global_step") == step]
    return score(rows[-1], rule) if rows else None


def mean_value(group: Group) -> float | None:
    """Over the completed jobs; None if one lacks it."""
    values = [selector_value(job) for job in group.done]
    measured = [value for value in values if value is not None]
    return mean_of(measured) if len(measured) == len(values) else None


def chosen_settings(groups: Sequence[Group], metric: str) -> list[Choice]:
    """One for each (sweep, data, method) with several settings that share one rule."""
    choices = []
    by_method: dict[tuple[str, str, str], list[Group]] = {}
    for group in groups:
        by_method.setdefault((group.sweep, group.data, group.method), []).append(group)
    for of_method in by_method.values():
        alike = [g for g in of_method if g.done]
        rules = {str(job.summary.get("selection_rule")) for g in alike for job in g.done}
        measured = [g for g in alike if g.row("selected", metric).n]
        valued = {g: value for g in measured if (value := mean_value(g)) is not None}
        if len(valued) < 2 or len(rules) != 1:
            continue
        choice = max(valued, key=lambda g: valued[g])
        best = max(valued, key=lambda g: g.standing(metric) or 0.0)
        choices.append(
            Choice(
                rule=rules.pop(),
                value=valued[choice],
                chosen=choice.row("selected", metric),
                best=best.row("selected", metric),
                lost=(best.standing(metric) or 0.0) - (choice.standing(metric) or 0.0),
                of=len(valued),
            )
        )
    return choices


def at_chosen_settings(groups: Sequence[Group], choices: Sequence[Choice]) -> list[Group]:
    """One group for each (sweep, data, method): the chosen one, or the only one.

    [] where no method was run with several settings; without methods of which none could be chosen.
    """
    chosen = {
        (c.chosen.group.sweep, c.chosen.group.data, c.chosen.group.method): c for c in choices
    }
    by_method: dict[tuple[str, str, str], list[Group]] = {}
    for group in groups:
        by_method.setdefault((group.sweep, group.data, group.method), []).append(group)
    picked = [
        chosen[key].chosen.group if key in chosen else alike[0]
        for key, alike in by_method.items()
        if key in chosen or len(alike) == 1
    ]
    return picked if len(picked) < len(groups) else []


def _settings(group: Group) -> str:
    return " ".join(group.written(group.varying)) or "defaults"
