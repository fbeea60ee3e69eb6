"""report.html of a leaderboard: what the template shows, and its pictures."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tlrun.evaluate.figures import finite
from tlrun.report.figures.axes import draw_axes
from tlrun.report.figures.search_plots import draw_history, draw_params
from tlrun.report.figures.sweep_curves import draw_learning_curves
from tlrun.report.formats import NONE, in_percent, in_points, sentence_case
from tlrun.report.pages.render import render
from tlrun.report.read.entries import Missing
from tlrun.report.read.rank import FILE, SHARES, TITLES, read_scores
from tlrun.report.read.run_record import RunRecord
from tlrun.report.statistics import search
from tlrun.report.statistics.chosen import at_chosen_settings, chosen_settings
from tlrun.report.statistics.groups import Group
from tlrun.report.statistics.leaderboard import Leaderboard
from tlrun.report.statistics.matrix import chosen_matrix, settings_of_sweeps
from tlrun.report.statistics.over_data import MeanGroup
from tlrun.report.statistics.provenance import provenance
from tlrun.report.statistics.rank_correlation import figures_by_cut, rank_correlations
from tlrun.report.statistics.regrets import over_runs
from tlrun.report.statistics.significance import verdict

MOST_PAIRS = 200
NAMED = 2  # data whose leader is named at the top; of more, that of their mean is
FOLDED = 40  # rows of a table above which the table by data stands for it


@dataclass(frozen=True)
class Context:
    """What the page says beside the leaderboard. searches, made: with the label of their sweep.

    made: the commands that made it; never_begun: overrides of jobs without a folder; resume: the
    command that completes the sweep, None for a comparison; again: the one that writes this page.
    """

    title: str
    cautions: list[str]
    searches: list[tuple[str, search.SearchRecord]]
    never_begun: list[str]
    made: list[tuple[str, list[str]]]
    resume: str | None
    again: str


@dataclass(frozen=True)
class Winner:
    """The group in front on some data, or (over) on their mean.

    level: the name of another one that has the same figure; second: the runner-up with its figure;
    verdict: what the difference is worth.
    """

    data: str
    name: str
    text: str
    n: int
    over: bool
    level: str = ""
    second: str = ""
    verdict: str = ""


def leaderboard_html(board: Leaderboard, context: Context, folder: Path) -> str:
    """The page; its pictures are drawn into plots/ of `folder`."""
    # A search has its own winner and its own pictures, also of the trials that it did not choose.
    alone = bool(context.searches) and not board.compares
    drawn = board.groups if alone else board.candidates
    chosen = [] if alone else chosen_settings([*board.means, *board.candidates], board.metric)
    scores = read_scores(folder / FILE)
    ranks = rank_correlations(scores, board.candidates, board.metric)
    return render(
        "sweep.html",
        subtitle=str(folder.resolve()),
        board=board,
        context=context,
        metric=board.title,
        unit=board.unit,
        percent_sign=" %" if board.unit == "share" else "",
        in_percent=in_percent(board.unit),
        in_points=" in" + in_points(board.unit) if in_points(board.unit) else "",
        states=sorted(Counter(job.state for job in board.jobs).items()),
        winners=None if alone else _winners(board),
        most_winners=1 if len(board.means) and len(_sets(board)) > NAMED else NAMED,
        searches=[_search(one, label, folder) for label, one in context.searches],
        matrices=board.matrices,
        folded=bool(board.matrices) and len(board.lines) > FOLDED,
        sweeps=settings_of_sweeps(board.groups) if board.compares else [],
        pairs=board.differences[:MOST_PAIRS],
        chosen=chosen,
        at_chosen=chosen_matrix(at_chosen_settings(board.candidates, chosen), board.metric),
        pictures=_draw(folder, {"learning_curves": lambda path: draw_learning_curves(drawn, path)}),
        validators=over_runs(board.jobs),
        axes=draw_axes(board.candidates, board.metric, folder / "plots"),
        ranks=ranks,
        scores=scores if ranks else [],
        score_titles=TITLES,
        shares=SHARES,
        by_cut=figures_by_cut(board.candidates, board.metric) if ranks else {},
        jobs=[_job(board, place, folder) for place in range(len(board.jobs))],
        provenance=provenance(board.jobs),
    )


def _draw(folder: Path, draws: dict[str, Any]) -> dict[str, Path]:
    """{name: picture} of those with something to show; what an older page had of others goes."""
    drawn = {}
    for name, draw in draws.items():
        path = folder / "plots" / f"{name}.png"
        try:
            draw(path)
            drawn[name] = path
        except Missing:
            path.unlink(missing_ok=True)
    return drawn


def _search(one: search.SearchRecord, label: str, folder: Path) -> dict[str, Any]:
    """A search for the page, its pictures drawn into the page's folder."""
    suffix = f"_{label.replace('/', '_')}" if label else ""
    return {
        "name": label,
        "search": one,
        "sentences": search.sentences(one),
        "lines": search.table(one),
        "fresh_seeds": search.fresh_seeds(one),
        "pictures": _draw(
            folder,
            {
                f"search_history{suffix}": lambda path: draw_history(one, path),
                f"search_params{suffix}": lambda path: draw_params(one, path),
            },
        ),
    }


def _sets(board: Leaderboard) -> list[str]:
    return list(dict.fromkeys(group.data for group in board.groups))


def _winners(board: Leaderboard) -> list[Winner]:
    """Of the mean over data and of each data, if any group has a figure."""
    means = dict.fromkeys(group.data for group in board.means)
    bests = [board.best(data) for data in (*means, *_sets(board))]
    return [_winner(board, best) for best in bests if best is not None]


def _winner(board: Leaderboard, best: Group) -> Winner:
    row, over = best.row("selected", board.metric), isinstance(best, MeanGroup)
    data = sentence_case(best.data) if over else board.head(best.data, whole=True)
    others = (
        group.row("selected", board.metric)
        for group in (*board.means, *board.candidates)
        if group.data == best.data
        and group is not best
        and (best.saw_target_labels or not group.saw_target_labels)
    )
    second = next((other for other in others if other.n), None)
    if second is None:
        return Winner(data, best.name, row.text, row.n, over)
    difference = board.between(best, second.group)
    level = math.isclose(row.mean or 0.0, second.mean or 0.0, abs_tol=1e-9)
    return Winner(
        data=data,
        name=best.name,
        text=row.text,
        n=row.n,
        over=over,
        level=second.group.name if level else "",
        second=f"{second.group.name} with {second.text}{' %' if board.unit == 'share' else ''}",
        verdict=verdict(difference)
        if difference
        else "They have no seed in common: there is no paired test.",
    )


def _job(board: Leaderboard, place: int, folder: Path) -> dict[str, Any]:
    job: RunRecord = board.jobs[place]
    name = os.path.relpath(job.path.resolve(), folder.resolve())
    return {
        "name": name,
        "sweep": board.sweeps[place] if board.compares else "",
        "link": quote(f"{Path(name).as_posix()}/report.html") if job.run.report.exists() else None,
        "overrides": " ".join(job.overrides),
        "state": job.state,
        "values": [job.value(board.metric, rule) for rule in board.rules],
        "step": job.figures("selected").get("step"),
        "images": finite(job.summary.get("images_seen")),
        "seconds": finite(job.summary.get("train_seconds")),
        "last_step": job.status.get("step"),
        "error": str(job.status.get("error") or NONE),
    }
