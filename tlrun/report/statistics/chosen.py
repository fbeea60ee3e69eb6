"""Which setting of each method would the rule of selection choose? No target test label decides.

Where a method was run with several settings, the one with the highest mean of the selector's value
(at the selected checkpoints, over seeds) is the method's result; the one with the best test figure
stands beside it, to show what the choice lost. Values of one rule compare within a method only.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from tlrun.evaluate.selection import score, sees_target_labels
from tlrun.report.read.groups import Group
from tlrun.report.read.record import Record


def selector_value(job: Record) -> float | None:
    """The value of the job's own rule at its selected checkpoint.

    None for rules that see target labels or have no value ("last"), and where the rule found no
    checkpoint.
    """
    rule = str(job.summary.get("selection_rule"))
    if sees_target_labels(rule) or job.summary.get("selection_fell_back"):
        return None
    at = job.selected_at
    rows = [row for row in job.split("eval") if row.get("at") == at]
    return score(rows[-1], rule) if rows else None


def mean_value(group: Group) -> float | None:
    """Over the completed jobs; None if one lacks it."""
    values = [selector_value(job) for job in group.done]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def chosen_settings(groups: Sequence[Group], metric: str) -> list[dict[str, Any]]:
    """A row per (sweep, data, method) with several settings that share one rule."""
    rows = []
    for key in dict.fromkeys((g.sweep, g.data, g.method) for g in groups):
        own = [g for g in groups if (g.sweep, g.data, g.method) == key and g.done]
        rules = {str(job.summary.get("selection_rule")) for g in own for job in g.done}
        valued = [(value, g) for g in own if (value := mean_value(g)) is not None]
        valued = [(value, g) for value, g in valued if g.spread("selected", metric).n]
        if len(valued) < 2 or len(rules) != 1:
            continue
        value, choice = max(valued, key=lambda item: item[0])
        best = max((g for _, g in valued), key=lambda g: g.standing(metric) or 0.0)
        mine, theirs = (g.spread("selected", metric) for g in (choice, best))
        rows.append(
            {
                "group": choice,
                "settings": _settings(choice),
                "rule": rules.pop(),
                "value": value,
                "spread": mine,
                "best": _settings(best),
                "best_spread": theirs,
                "lost": (best.standing(metric) or 0.0) - (choice.standing(metric) or 0.0),
                "of": len(valued),
            }
        )
    return rows


def _settings(group: Group) -> str:
    return " ".join(group.written(group.varying)) or "defaults"
