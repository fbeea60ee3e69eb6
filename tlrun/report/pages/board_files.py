"""leaderboard.csv, for other tools, and leaderboard.md, for a text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from tlrun.files import csv_file
from tlrun.report.pages import render
from tlrun.report.read.groups import SOURCE, Group
from tlrun.report.read.record import RULES
from tlrun.report.statistics.board import Board
from tlrun.report.statistics.chosen import mean_value
from tlrun.report.statistics.matrix import matrices

AGAINST = ("difference", "n", "p", "p_holm", "low", "high")
COSTS = ("steps", "images_seen", "train_seconds")


def leaderboard_csv(board: Board) -> str:
    """One line per group, values in [0, 1] as in summary.json; empty where there is none."""
    out = io.StringIO()
    write = csv_file.Writer(out, lineterminator="\n")
    metric = board.metric
    columns = [f"{rule}/{metric}/{part}" for rule in RULES for part in ("mean", "std", "n")]
    source = [f"selected/{SOURCE}/{part}" for part in ("mean", "std")] if metric != SOURCE else []
    write.writerow(
        [
            *(["sweep"] if board.compares else []),
            *(
                "data",
                "method",
                *board.settings,
                *board.shared,
                "jobs",
                "completed",
                "saw_target_labels",
                "failed_trainings",
            ),
            *(*columns, *source),
            *(f"against_best/{part}" for part in AGAINST),
            "selector_value/mean",
            *(f"{cost}/mean" for cost in COSTS),
        ]
    )
    for group in board.groups:
        write.writerow(
            [
                *([group.sweep] if board.compares else []),
                *(group.data, group.method),
                *(group.settings.get(key, "") for key in [*board.settings, *board.shared]),
                *(len(group.jobs), len(group.done), str(group.saw_target_labels).lower()),
                len(group.failed_trainings),
                *_figures(board, group, bool(source)),
                *_against_best(board, group),
                mean_value(group),
                *(_mean(group.values(cost)) for cost in COSTS),
            ]
        )
    return out.getvalue()


def _figures(board: Board, group: Group, source: bool) -> list[Any]:
    spreads = [group.spread(rule, board.metric) for rule in RULES]
    cells: list[Any] = [cell for one in spreads for cell in (one.mean, one.std, one.n)]
    if source:
        one = group.spread("selected", SOURCE)
        cells += [one.mean, one.std]
    return cells


def _against_best(board: Board, group: Group) -> list[Any]:
    one = board.against_best(group)
    if one is None:
        return [None] * len(AGAINST)
    return [one.mean, one.n, one.p, one.p_holm, one.low, one.high]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def leaderboard_md(board: Board, cautions: Sequence[str]) -> str:
    shares = board.unit == "share"
    text = (
        f"Mean ± standard deviation over seeds of {board.title}{', in percent' if shares else ''}. "
        f"Against the best of the data: difference{' in points' if shares else ''} by the selected "
        "checkpoints, paired over common seeds, p of the two-sided paired t-test after Holm's "
        "correction for all pairs of the data.\n\n"
    )
    text += _table(board)
    for one in matrices(board.candidates, board.metric, board.rules[:1]):
        text += f"\nBy data, {one['rule']} checkpoints, the best of each column in bold:\n\n"
        text += _line(["method", *one["heads"]]) + _rule(1 + len(one["heads"]))
        for row in one["rows"]:
            cells = [f"**{c.text}**" if c.best else c.text for c in row["cells"]]
            text += _line([row["name"] + ("*" if row["saw"] else ""), *cells])
    if any(group.saw_target_labels for group in board.groups):
        text += "\n\\* saw target labels in training or selection.\n"
    if cautions:
        text += "\nTo keep in mind:\n\n" + "".join(f"- {_escaped(one)}\n" for one in cautions)
    return text + _unfinished(board)


def _table(board: Board) -> str:
    header = [
        *(["sweep"] if board.compares else []),
        *("data", "method", *board.settings, "n", *board.rules),
        "selected, against the best",
        "time",
    ]
    text = _line(header) + _rule(len(header))
    for row in board.rows():
        group: Group = row["group"]
        difference = row["difference"]
        text += _line(
            [
                *([group.sweep] if board.compares else []),
                group.data,
                group.method + group.marks,
                *(group.settings.get(key, "") for key in board.settings),
                str(row["n"]) if row["n"] == row["total"] else f"{row['n']} of {row['total']}",
                *(spread.text() for spread in row["spreads"]),
                "best" if row["best"] else difference.text() if difference else render.NONE,
                row["time"],
            ]
        )
    return text


def _unfinished(board: Board) -> str:
    failed = [job for group in board.groups for job in group.jobs if job.state != "completed"]
    if not failed:
        return ""
    text = "\nNot completed:\n\n" + _line(["job", "state", "error"]) + _rule(3)
    for job in failed:
        text += _line([job.path.name, job.state, str(job.status.get("error") or "")])
    return text


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell).replace("|", "\\|") for cell in cells) + " |\n"


def _rule(columns: int) -> str:
    return "| " + " | ".join(["---"] * columns) + " |\n"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is: no element, link, picture or second line."""
    text = " ".join(text.replace("\\", "\\\\").replace("[", "\\[").splitlines())
    return text.replace("<", "&lt;")
