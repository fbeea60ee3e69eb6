"""The leaderboard of a sweep, or of several: leaderboard.csv, leaderboard.md and report.html."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlrun.errors import ConfigError
from tlrun.files.atomic import write_atomic
from tlrun.report.pages import render
from tlrun.report.pages.board_files import leaderboard_csv, leaderboard_md
from tlrun.report.pages.board_page import Found, board_html
from tlrun.report.pages.search import NAME, Search, read_search
from tlrun.report.read.record import Record, is_run, read_record
from tlrun.report.statistics import provenance
from tlrun.report.statistics.board import Board, board_of
from tlrun.report.statistics.cautions import cautions

RUNS = "runs"  # what single run folders are called in a comparison


@dataclass(frozen=True)
class Source:
    """A folder of jobs, or a job; label: its name where several are compared, else empty."""

    path: Path
    label: str

    @property
    def jobs(self) -> list[Path]:
        return [self.path] if is_run(self.path) else find_jobs(self.path)


def find_jobs(path: Path) -> list[Path]:
    """The run folders below `path` in order of their names; a run's own baseline/ is no job."""
    found: list[Path] = []
    for folder, names, _ in os.walk(path):
        here = Path(folder)
        if here != Path(path) and is_run(here):
            found.append(here)
            names.clear()
        names[:] = sorted(name for name in names if not name.startswith("."))
    return sorted(found)


def write_leaderboard(path: Path) -> Path:
    """Write the three files of a sweep folder; returns the page's path."""
    path, source = Path(path), Source(Path(path), "")
    board = board_of([read_record(folder) for folder in source.jobs])
    return _write(
        board,
        [source],
        path,
        title=f"Sweep of {len(board.jobs)} jobs",
        resume=render.command("resume", str(path.resolve())),
        again=render.command("report", str(path.resolve())),
    )


def write_comparison(paths: Sequence[Path], folder: Path) -> Path:
    """Write the three files over the jobs of several folders into `folder`; returns the page.

    paths: sweep folders, folders of run folders, and single run folders, in any mixture; each is a
    sweep of the table by its own name, single runs together one called "runs". A job that is given
    twice counts once. Raises ConfigError if `folder` holds runs itself or a path holds none.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; give a folder for the comparison")
    if is_run(folder) or (folder / "sweep.yaml").exists() or find_jobs(folder):
        raise ConfigError(
            f"{folder} holds runs with a leaderboard of their own; give another folder for the "
            "comparison"
        )
    sources = sources_of(paths)
    found: dict[Path, str] = {}
    for source in sources:
        if not (jobs := source.jobs):
            raise ConfigError(f"{source.path} is neither a run folder nor a folder of run folders")
        for job in jobs:
            found.setdefault(job.resolve(), source.label)
    board = board_of([read_record(job) for job in found], list(found.values()))
    folder.mkdir(parents=True, exist_ok=True)
    n = len(set(found.values()))
    return _write(
        board,
        sources,
        folder,
        title=f"{n} sweep{'s' if n != 1 else ''}, {len(found)} jobs",
        resume=None,
        again=render.command(
            "report", *(str(s.path) for s in sources), "--compare", str(folder.resolve())
        ),
    )


def sources_of(paths: Sequence[Path]) -> list[Source]:
    """Each folder once, by its name, with so much of the path that two of them differ."""
    whole = list(dict.fromkeys(Path(path).resolve() for path in paths))
    sweeps = [path for path in whole if not is_run(path)]
    depth = 1
    while len({path.parts[-depth:] for path in sweeps}) < len(sweeps):
        depth += 1
    return [Source(path, RUNS if is_run(path) else "/".join(path.parts[-depth:])) for path in whole]


def _write(
    board: Board,
    sources: list[Source],
    folder: Path,
    title: str,
    resume: str | None,
    again: str,
) -> Path:
    searches = {
        source: one
        for source in sources
        if (one := read_search(source.path, board.jobs, board.metric))
    }
    board = board.without(_not_chosen(board, searches.values()))
    missing = [_never_begun(source, board.jobs) for source in sources]
    warnings = cautions(board, sum(n for n, _ in missing))
    write_atomic(folder / "leaderboard.csv", leaderboard_csv(board))
    write_atomic(folder / "leaderboard.md", leaderboard_md(board, warnings))
    found = Found(
        cautions=warnings,
        searches=[(source.label, one) for source, one in searches.items()],
        never_begun=[line for _, lines in missing for line in lines],
        made=[(s.label, lines) for s in sources if (lines := provenance.commands(s.path))],
        resume=resume,
        again=again,
    )
    write_atomic(folder / "report.html", board_html(board, found, folder, title))
    return folder / "report.html"


def _never_begun(source: Source, jobs: list[Record]) -> tuple[int, list[str]]:
    """Nothing of a search, which draws its jobs as it goes."""
    if is_run(source.path) or (source.path / NAME).exists():
        return 0, []
    here = source.path.resolve()
    inside = [job for job in jobs if here in job.path.resolve().parents]
    return provenance.never_begun(source.path, inside)


def _not_chosen(board: Board, searches: Iterable[Search]) -> frozenset[int]:
    """Ids of the groups of trials that a search did not choose."""
    barred: set[Path] = set()
    for one in searches:
        if one.best is not None:
            chosen = {record.path for record in one.best.records}
            barred |= {r.path for trial in one.trials for r in trial.records} - chosen
    return frozenset(
        id(group) for group in board.groups if all(job.path in barred for job in group.jobs)
    )
