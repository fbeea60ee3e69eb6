"""Write report.html of a run, or leaderboard.csv, leaderboard.md and report.html of sweeps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_limits

from tlrun.errors import ConfigError
from tlrun.files.atomic import write_atomic
from tlrun.messages import plural
from tlrun.report.formats import command
from tlrun.report.pages.leaderboard_files import by_data_csv, leaderboard_csv, leaderboard_md
from tlrun.report.pages.leaderboard_page import Context, leaderboard_html
from tlrun.report.pages.run_page import run_html
from tlrun.report.read.run_record import RunRecord, is_run, read_record
from tlrun.report.statistics import provenance
from tlrun.report.statistics.cautions import cautions
from tlrun.report.statistics.groups import primary_metric
from tlrun.report.statistics.leaderboard import Leaderboard, leaderboard_of
from tlrun.report.statistics.search import NAME, read_search

PAGE = "report.html"
RUNS = "runs"  # what single run folders are called in a comparison


@dataclass(frozen=True)
class Source:
    """A folder of jobs, or a job; label: its name where several are compared, else empty."""

    path: Path
    label: str

    @property
    def jobs(self) -> list[Path]:
        return [self.path] if is_run(self.path) else find_jobs(self.path)


# the products of a report are small, and threads that share one spin: on a busy machine they take
# far longer than one alone
@threadpool_limits.wrap(limits=1)
def write_report(path: Path, output: Path | None = None, *, kind: str = "full") -> Path:
    """(Re)write the report of a run, or the leaderboard of a sweep; returns the page's path.

    output: another folder for the page of a run. kind: of the page of a run, "full", "light"
    (without the slow pictures) or "text" (without any).
    Raises ConfigError when `path` is neither.
    """
    path = Path(path)
    if is_run(path):
        record = read_record(path, output)
        html = run_html(record, kind)
        record.page.path.mkdir(parents=True, exist_ok=True)
        write_atomic(record.page.report, html)
        return record.page.report
    if output is not None:
        raise ConfigError(f"{path} is no run; write its leaderboard with --compare {output}")
    write_leaderboard(path)
    return path / PAGE


@threadpool_limits.wrap(limits=1)
def write_leaderboard(path: Path) -> Leaderboard:
    """(Re)write the three files of a sweep. Raises ConfigError when `path` holds no run."""
    if not (jobs := find_jobs(path)):
        raise ConfigError(
            f"{path} is neither a run folder (no config.yaml) nor a sweep folder (no run folder "
            "inside); give the folder that tlrun printed at its end."
        )
    return _write_leaderboard(
        [Source(path, "")],
        dict.fromkeys(jobs, ""),
        path,
        title=f"Sweep of {plural(len(jobs), 'job')}",
        resume=command("resume", str(path.resolve())),
        again=command("report", str(path.resolve())),
    )


@threadpool_limits.wrap(limits=1)
def write_comparison(paths: Sequence[Path], folder: Path) -> Path:
    """Write the three files over the jobs of several folders into `folder`; returns the page.

    paths: sweep folders, folders of run folders, and single run folders, in any mixture; each is a
    sweep of the table by its own name, single runs together one called "runs". A job that is given
    twice counts once. Raises ConfigError if `folder` holds runs itself or a path holds none.
    """
    folder = Path(folder)
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; give a folder for the comparison")
    if is_run(folder):
        raise ConfigError(
            f"{folder} is a run, and the comparison is written to a folder of its own: give "
            "--compare another folder"
        )
    if (folder / "sweep.yaml").exists() or find_jobs(folder):
        raise ConfigError(
            f"{folder} holds runs with a leaderboard of their own; give another folder for the "
            "comparison"
        )
    sources = sources_of(paths)
    labels: dict[Path, str] = {}
    for source in sources:
        if not (jobs := source.jobs):
            raise ConfigError(f"{source.path} is neither a run folder nor a folder of run folders")
        for job in jobs:
            labels.setdefault(job.resolve(), source.label)
    n = len(set(labels.values()))
    words = [*(str(source.path) for source in sources), "--compare", str(folder.resolve())]
    _write_leaderboard(
        sources,
        labels,
        folder,
        title=f"{plural(n, 'sweep')}, {plural(len(labels), 'job')}",
        resume=None,
        again=command("report", *words),
    )
    return folder / PAGE


def find_jobs(path: Path) -> list[Path]:
    """The run folders below `path` in order of their names; a run's own baseline/ is no job."""
    jobs: list[Path] = []
    for folder, names, _ in os.walk(path):
        here = Path(folder)
        if here != Path(path) and is_run(here):
            jobs.append(here)
            names.clear()
        names[:] = sorted(name for name in names if not name.startswith("."))
    return sorted(jobs)


def sources_of(paths: Sequence[Path]) -> list[Source]:
    """Each folder once, by its name, with so much of the path that two of them differ."""
    whole = list(dict.fromkeys(Path(path).resolve() for path in paths))
    sweeps = [path for path in whole if not is_run(path)]
    depth = 1
    while len({path.parts[-depth:] for path in sweeps}) < len(sweeps):
        depth += 1
    return [Source(path, RUNS if is_run(path) else "/".join(path.parts[-depth:])) for path in whole]


def _write_leaderboard(
    sources: list[Source],
    labels: dict[Path, str],
    folder: Path,
    title: str,
    resume: str | None,
    again: str,
) -> Leaderboard:
    """labels: {run folder: the label of its sweep}, all empty where only one is shown."""
    jobs = [read_record(job) for job in labels]
    metric = primary_metric(jobs)
    searched = [(source.label, read_search(source.path, jobs, metric)) for source in sources]
    searches = [(label, search) for label, search in searched if search is not None]
    not_chosen = {record for _, search in searches for record in search.not_chosen}
    board = leaderboard_of(jobs, list(labels.values()) if any(labels.values()) else [], not_chosen)
    missing = [_never_begun(source, jobs) for source in sources]
    warnings = cautions(board, sum(n for n, _ in missing))
    context = Context(
        title=title,
        cautions=warnings,
        searches=searches,
        never_begun=[line for _, lines in missing for line in lines],
        made=[(s.label, lines) for s in sources if (lines := provenance.commands(s.path))],
        resume=resume,
        again=again,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "leaderboard.csv", leaderboard_csv(board))
    by_data = folder / "leaderboard_by_data.csv"
    if text := by_data_csv(board):
        write_atomic(by_data, text)
    else:
        by_data.unlink(missing_ok=True)
    write_atomic(folder / "leaderboard.md", leaderboard_md(board, warnings))
    write_atomic(folder / PAGE, leaderboard_html(board, context, folder))
    return board


def _never_begun(source: Source, jobs: list[RunRecord]) -> tuple[int, list[str]]:
    """Nothing of a search, which draws its jobs as it goes."""
    if is_run(source.path) or (source.path / NAME).exists():
        return 0, []
    here = source.path.resolve()
    inside = [job for job in jobs if here in job.path.resolve().parents]
    return provenance.never_begun(source.path, inside)
