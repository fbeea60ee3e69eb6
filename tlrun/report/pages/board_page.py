"""report.html of a leaderboard: what the template shows, and its pictures."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tlrun.report.figures.axes import draw_axes
from tlrun.report.figures.search_plots import draw_history, draw_params
from tlrun.report.figures.style import Missing
from tlrun.report.figures.sweep_curves import draw_learning_curves
from tlrun.report.pages import render, search
from tlrun.report.read.groups import Group
from tlrun.report.read.record import Record, number
from tlrun.report.statistics import provenance
from tlrun.report.statistics.board import Board
from tlrun.report.statistics.chosen import chosen_settings
from tlrun.report.statistics.matrix import matrices, settings_of_sweeps
from tlrun.report.statistics.regrets import over_runs
from tlrun.report.statistics.significance import verdict

MOST_PAIRS = 200


@dataclass(frozen=True)
class Found:
    """What the page says beside the board. searches and made: with the label of their sweep.

    made: the commands that made it; never_begun: overrides of jobs without a folder; resume: the
    command that completes the sweep, None for a comparison; again: the one that writes this page.
    """

    cautions: list[str]
    searches: list[tuple[str, search.Search]]
    never_begun: list[str]
    made: list[tuple[str, list[str]]]
    resume: str | None
    again: str


def board_html(board: Board, found: Found, folder: Path, title: str) -> str:
    """The page; its pictures are drawn into plots/ of `folder`."""
    # A search has its own winner and its own pictures, also of the trials that it did not choose.
    alone = bool(found.searches) and not board.compares
    return render.render(
        "sweep.html",
        title=title,
        subtitle=str(folder.resolve()),
        board=board,
        found=found,
        metric=board.title,
        unit=board.unit,
        percent_sign=" %" if board.unit == "share" else "",
        in_percent=render.in_percent(board.unit),
        in_points=" in points" if board.unit == "share" else "",
        states=_states(board.jobs),
        winners=None if alone else _winners(board),
        searches=[_shown(one, label, folder) for label, one in found.searches],
        matrices=matrices(board.candidates, board.metric, board.rules),
        sweeps=settings_of_sweeps(board.groups) if board.compares else [],
        rows=board.rows(),
        pairs=board.pairs[:MOST_PAIRS],
        hidden_pairs=max(0, len(board.pairs) - MOST_PAIRS),
        chosen=[] if alone else chosen_settings(board.candidates, board.metric),
        picture=_curves(board, folder, everything=alone),
        validators=over_runs(board.jobs),
        axes=draw_axes(board.candidates, board.metric, folder / "plots"),
        unfinished=[_unfinished(job, folder) for job in board.jobs if job.state != "completed"],
        jobs=[_job(board, place, folder) for place in range(len(board.jobs))],
        provenance=provenance.provenance(board.jobs),
    )


def _curves(board: Board, folder: Path, everything: bool) -> Path | None:
    picture = folder / "plots" / "learning_curves.png"
    try:
        draw_learning_curves(board.groups if everything else board.candidates, picture)
    except Missing:
        picture.unlink(missing_ok=True)
        return None
    return picture


def _shown(one: search.Search, label: str, folder: Path) -> dict[str, Any]:
    """A search for the page, its pictures drawn into the page's folder."""
    suffix = f"_{label.replace('/', '_')}" if label else ""
    drawn = []
    for name, draw in (("history", draw_history), ("params", draw_params)):
        path = folder / "plots" / f"search_{name}{suffix}.png"
        try:
            draw(one, path)
            drawn.append((name, path))
        except Missing:
            path.unlink(missing_ok=True)
    return {
        "name": label,
        "search": one,
        "sentences": search.sentences(one),
        "rows": search.table(one),
        "fresh_seeds": search.fresh_seeds(one),
        "pictures": drawn,
    }


def _winners(board: Board) -> list[dict[str, Any]]:
    """For each data the group in front, the runner-up, and what their difference is worth."""
    found = []
    for data in dict.fromkeys(group.data for group in board.groups):
        best = board.best(data)
        if best is None:
            continue
        spread = best.spread("selected", board.metric)
        others = [
            group
            for group in board.candidates
            if group.data == data
            and group is not best
            and group.spread("selected", board.metric).n
            and (best.saw_target_labels or not group.saw_target_labels)
        ]
        second = others[0] if others else None
        difference = None if second is None else board.between(best, second)
        found.append(
            {
                "data": data,
                "name": best.name,
                "text": spread.text(),
                "n": spread.n,
                "level": second.name if second and _level(best, second, board.metric) else "",
                "second": second
                and f"{second.name} with {second.spread('selected', board.metric).text()}"
                + (" %" if board.unit == "share" else ""),
                "clear": bool(difference and difference.clear),
                "verdict": (
                    verdict(difference)
                    if difference
                    else "They have no seed in common: there is no paired test."
                    if second
                    else ""
                ),
            }
        )
    return found


def _level(one: Group, other: Group, metric: str) -> bool:
    """Whether their figures are equal: nobody leads then."""
    a, b = (group.spread("selected", metric).mean for group in (one, other))
    return a is not None and b is not None and math.isclose(a, b, abs_tol=1e-9)


def _states(jobs: list[Record]) -> list[dict[str, str]]:
    counts: dict[str, int] = {}
    for job in jobs:
        counts[job.state] = counts.get(job.state, 0) + 1
    kinds = {"completed": "good"}
    return [
        {"kind": kinds.get(state, "warn"), "text": f"{n} {state}"}
        for state, n in sorted(counts.items())
    ]


def _name(job: Record, folder: Path) -> str:
    return os.path.relpath(job.path.resolve(), folder.resolve())


def _unfinished(job: Record, folder: Path) -> dict[str, Any]:
    return {
        "name": _name(job, folder),
        "overrides": " ".join(job.overrides),
        "state": job.state,
        "step": job.status.get("step"),
        "error": str(job.status.get("error") or render.NONE),
    }


def _job(board: Board, place: int, folder: Path) -> dict[str, Any]:
    job = board.jobs[place]
    name = _name(job, folder)
    return {
        "name": name,
        "sweep": board.sweeps[place] if board.compares else "",
        "link": quote(f"{Path(name).as_posix()}/report.html") if job.run.report.exists() else None,
        "overrides": " ".join(job.overrides),
        "state": job.state,
        "values": [number(job.figures(rule).get(board.metric)) for rule in board.rules],
        "step": job.figures("selected").get("step"),
        "images": number(job.summary.get("images_seen")),
        "seconds": number(job.summary.get("train_seconds")),
    }
