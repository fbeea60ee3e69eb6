"""leaderboard.csv and leaderboard_by_data.csv, for other tools, and leaderboard.md, for a text."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from tlrun.files import csv_file
from tlrun.report.formats import in_percent, in_points, number
from tlrun.report.read.run_record import RULES
from tlrun.report.statistics.chosen import mean_value
from tlrun.report.statistics.groups import SOURCE, mean_of
from tlrun.report.statistics.leaderboard import Leaderboard, Line
from tlrun.report.statistics.matrix import Cell, Matrix

COSTS = ("steps", "images_seen", "train_seconds")
Cells = list[tuple[str, Any]]  # (column, cell)


def leaderboard_csv(board: Leaderboard) -> str:
    """One line per group, values in [0, 1] as in summary.json; empty where there is none."""
    out = io.StringIO()
    write = csv_file.Writer(out, lineterminator="\n")
    lines = [_csv_cells(board, line) for line in board.lines]
    write.writerow([column for column, _ in lines[0]])
    for cells in lines:
        write.writerow([cell for _, cell in cells])
    return out.getvalue()


def _csv_cells(board: Leaderboard, line: Line) -> Cells:
    group, gap = line.group, line.difference
    cells: Cells = [("sweep", group.sweep)] if board.compares else []
    cells += [("data", group.data), ("method", group.method)]
    cells += [(key, group.settings.get(key, "")) for key in (*board.settings, *board.shared)]
    cells += [("jobs", len(group.jobs)), ("completed", len(group.done))]
    cells += [("saw_target_labels", str(group.saw_target_labels).lower())]
    cells += [("failed_trainings", len(group.failed_trainings))]
    for rule in RULES:
        row, name = group.row(rule, board.metric), f"{rule}/{board.metric}"
        cells += [(f"{name}/mean", row.mean), (f"{name}/std", row.std), (f"{name}/n", row.n)]
    if board.metric != SOURCE:
        name = f"selected/{SOURCE}"
        cells += [(f"{name}/mean", line.source.mean), (f"{name}/std", line.source.std)]
    cells += [("against_best/difference", gap and gap.mean)]
    for part in ("n", "p", "p_holm", "low", "high"):
        cells += [(f"against_best/{part}", gap and getattr(gap, part))]
    cells += [("selector_value/mean", mean_value(group))]
    return [*cells, *((f"{cost}/mean", mean_of(group.values(cost))) for cost in COSTS)]


def leaderboard_md(board: Leaderboard, cautions: Sequence[str]) -> str:
    percent = "," + in_percent(board.unit) if in_percent(board.unit) else ""
    points = " in" + in_points(board.unit) if in_points(board.unit) else ""
    text = (
        f"Mean ± standard deviation over seeds of {board.title}{percent}. "
        f"Against the best of the data: difference{points} by the selected "
        "checkpoints, paired over common seeds, p of the two-sided paired t-test after Holm's "
        "correction for all pairs of the data.\n\n"
    )
    text += _table(cells_by_group(board))
    for matrix in board.matrices[:1]:
        text += _by_data_md(matrix)
    if any(group.saw_target_labels for group in board.groups):
        text += "\n\\* saw target labels in training or selection.\n"
    if cautions:
        text += "\nTo keep in mind:\n\n" + "".join(f"- {_escaped(one)}\n" for one in cautions)
    unfinished = [
        [("job", job.path.name), ("state", job.state), ("error", job.status.get("error") or "")]
        for group in board.groups
        for job in group.jobs
        if job.state != "completed"
    ]
    return text + ("\nNot completed:\n\n" + _table(unfinished) if unfinished else "")


def _by_data_md(matrix: Matrix) -> str:
    of = f" of {matrix.common}" if matrix.common else ""
    rest = f"; the {matrix.others} is all other domains" if matrix.others else ""
    mean = "; the mean is over the columns" if matrix.averaged else ""
    text = (
        f"\nBy {matrix.columns_are}{of}, {matrix.rule} checkpoints, the best of each column in "
        f"bold{_escaped(rest)}{mean}:\n\n"
    )
    text += _table(cells_by_data(matrix, lambda best: f"**{best}**"))
    return text + (f"\nNo mean: {_escaped('; '.join(matrix.gaps))}.\n" if matrix.gaps else "")


def by_data_csv(board: Leaderboard) -> str:
    """Method x data of the selected checkpoints, values in [0, 1]; "" with one column.

    The mean is over the columns, empty where a row lacks one; `columns` says how many it has.
    """
    matrix = next((one for one in board.matrices if one.rule == "selected"), None)
    if matrix is None:
        return ""
    out = io.StringIO()
    write = csv_file.Writer(out, lineterminator="\n")
    parts = [f"{head}/{part}" for head in matrix.names for part in ("mean", "std", "n")]
    write.writerow(["method", "saw_target_labels", *parts, "mean", "std", "columns", "of"])
    for row in matrix.rows:
        figures = [cell.row for cell in row.cells]
        cells = [part for f in figures for part in ((f.mean, f.std, f.n) if f else ("", "", 0))]
        has = len(row.cells) - len(row.missing)
        of = [row.average, row.std, has, len(row.cells)]
        write.writerow([row.name, str(row.sees).lower(), *cells, *of])
    return out.getvalue()


def first_table(board: Leaderboard) -> list[Cells]:
    """What is read first: method x data where there are several data, else the groups."""
    return cells_by_data(board.matrices[0]) if board.matrices else cells_by_group(board)


def cells_by_data(matrix: Matrix, mark: Callable[[str], str] = str) -> list[Cells]:
    """A line for each row. mark: what is done to the best of a column."""

    def written(cell: Cell) -> str:
        return mark(cell.text) if cell.best else cell.text

    lines = []
    for row in matrix.rows:
        cells: Cells = [("method", row.name + ("*" if row.sees else ""))]
        cells += zip(matrix.heads, map(written, row.cells), strict=True)
        if matrix.averaged:
            cells.append(("mean", mark(row.average_text) if row.best else row.average_text))
        lines.append(cells)
    return lines


def cells_by_group(board: Leaderboard) -> list[Cells]:
    """A line for each group, in order."""
    return [_cells(board, line) for line in board.lines]


def _cells(board: Leaderboard, line: Line) -> Cells:
    group = line.group
    return [
        *([("sweep", group.sweep)] if board.compares else []),
        *[("data", board.head(group.data)), ("method", group.method + group.marks)],
        *((key, group.settings.get(key, "")) for key in board.settings),
        ("n", line.seeds),
        *((row.rule, row.text) for row in line.figures),
        ("selected, against the best", line.against_best),
        ("time", number(line.seconds, "seconds")),
    ]


def _table(lines: Sequence[Cells]) -> str:
    """lines: at least one."""
    heads = [column for column, _ in lines[0]]
    text = _line(heads) + "| " + " | ".join(["---"] * len(heads)) + " |\n"
    return text + "".join(_line([str(cell) for _, cell in line]) for line in lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_escaped(cell).replace("|", "\\|") for cell in cells) + " |\n"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is: no element, link, picture or second line."""
    text = " ".join(text.replace("\\", "\\\\").replace("[", "\\[").splitlines())
    return text.replace("<", "&lt;")
