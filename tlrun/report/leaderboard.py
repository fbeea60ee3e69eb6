"""The leaderboard of a sweep: leaderboard.csv, leaderboard.md and report.html over its job folders.

Jobs that differ in nothing but the seed form a group; a group is one line: mean ± sample standard deviation over its
completed seeds, under each rule of selection. Differences are tested pairwise over the seeds both groups completed.
"""

from __future__ import annotations

import csv
import io
import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tlrun.report import render
from tlrun.report.record import RULES, Record, is_run, number, read_record, write_text

TARGET, SOURCE = "target_test/accuracy", "source_test/accuracy"
APART = ("method", "data", "seed")  # columns of their own; every other override that varies is a setting


@dataclass(frozen=True)
class Spread:
    """Values by seed under one rule."""

    values: dict[Any, float]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None for fewer than two seeds."""
        return statistics.stdev(self.values.values()) if self.n > 1 else None

    def text(self) -> str:
        """'91.0 ± 0.8' in percent."""
        spread = "" if self.std is None else f" ± {render.percent(self.std)}"
        return render.percent(self.mean) + spread


@dataclass
class Group:
    """All jobs that differ in nothing but the seed."""

    method: str
    data: str
    settings: dict[str, str]
    jobs: list[Record] = field(default_factory=list)

    @property
    def done(self) -> list[Record]:
        return [job for job in self.jobs if job.state == "completed"]

    @property
    def saw_target_labels(self) -> bool:
        return any(
            job.summary.get("selection_saw_target_labels") or job.summary.get("target_labels_seen") for job in self.done
        )

    @property
    def name(self) -> str:
        return " ".join([self.method, *(f"{key}={value}" for key, value in self.settings.items())])

    def spread(self, rule: str, metric: str) -> Spread:
        values = {job.seed: number(job.figures(rule).get(metric)) for job in self.done}
        return Spread({seed: value for seed, value in values.items() if value is not None})


def find_jobs(path: Path) -> list[Path]:
    """The run folders below `path`, in order of their names; a run's own sub-folders (baseline/) are not looked into."""
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
    from tlrun.report.sweep_curves import draw_learning_curves
    from tlrun.report.style import Missing

    path = Path(path)
    jobs = [read_record(folder) for folder in find_jobs(path)]
    groups = group_jobs(jobs)
    metric = primary_metric(jobs)
    rules = [rule for rule in ("selected", "last", "oracle") if any(g.spread(rule, metric).n for g in groups)]
    groups = _ranked(groups, metric)
    picture = path / "plots" / "learning_curves.png"
    try:
        draw_learning_curves(groups, picture)
    except Missing:
        picture.unlink(missing_ok=True)
    rows = [_row(group, groups, metric, rules) for group in groups]
    settings = list(dict.fromkeys(key for group in groups for key in group.settings))
    write_text(path / "leaderboard.csv", _csv(groups, metric, settings))
    write_text(path / "leaderboard.md", _markdown(rows, metric, rules, settings))
    html = render.render(
        "sweep.html",
        title=f"Sweep of {len(jobs)} jobs",
        subtitle=str(path.resolve()),
        states=_states(jobs),
        winners=_winners(groups, metric),
        metric=metric_name(metric),
        rules=rules,
        settings=settings,
        rows=rows,
        picture=picture if picture.exists() else None,
        unfinished=[_unfinished(job, path) for job in jobs if job.state != "completed"],
        jobs=[_job(job, path, metric, rules) for job in jobs],
        warn=any(group.saw_target_labels for group in groups),
        resume=render.command("resume", str(path)),
    )
    return write_text(path / "report.html", html)


def group_jobs(jobs: list[Record]) -> list[Group]:
    """Jobs by method, data and every other override that is not the same in all jobs."""
    given = [_overrides(job) for job in jobs]
    names = list(dict.fromkeys(key for overrides in given for key in overrides if key not in APART))
    varying = [key for key in names if len({overrides.get(key) for overrides in given}) > 1]
    groups: dict[tuple[Any, ...], Group] = {}
    for job, overrides in zip(jobs, given, strict=True):
        settings = {key: overrides[key] for key in varying if key in overrides}
        key = (job.method, job.data, *settings.items())
        groups.setdefault(key, Group(job.method, job.data, settings)).jobs.append(job)
    return list(groups.values())


def primary_metric(jobs: list[Record]) -> str:
    """What is compared: target test accuracy; without one, what the evaluators left first; at last the source's."""
    found = dict.fromkeys(
        key for job in jobs for key, value in job.figures("selected").items() if number(value) is not None
    )
    if TARGET in found:
        return TARGET
    others = [key for key in found if key != "step" and not key.startswith("source_test/")]
    return others[0] if others else SOURCE


def metric_name(metric: str) -> str:
    return metric.replace("/", " ").replace("_", " ")


def compare(group: Group, other: Group, metric: str) -> tuple[float, float | None, int] | None:
    """(mean difference group - other, p, n) over the seeds both completed, by the selected checkpoints.

    p is the two-sided paired t-test's; None for n < 2 or when all differences are equal. None without a common seed.
    """
    mine, theirs = group.spread("selected", metric).values, other.spread("selected", metric).values
    differences = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
    if not differences:
        return None
    n, mean = len(differences), statistics.fmean(differences)
    if n < 2 or statistics.stdev(differences) < 1e-12:
        return mean, None, n
    from scipy.stats import t

    statistic = mean / (statistics.stdev(differences) / n**0.5)
    return mean, float(2 * t.sf(abs(statistic), n - 1)), n


def _overrides(job: Record) -> dict[str, str]:
    pairs = [item.lstrip("+~").split("=", 1) for item in job.overrides if "=" in item]
    return {key: value for key, value in pairs if not key.startswith("hydra.")}


def _ranked(groups: list[Group], metric: str) -> list[Group]:
    """By data, best selected mean first, groups without a result last."""

    def place(group: Group) -> tuple[str, float]:
        mean = group.spread("selected", metric).mean
        return group.data, -mean if mean is not None else float("inf")

    return sorted(groups, key=place)


def _best(group: Group, groups: list[Group]) -> Group:
    """The first of its data in ranked order."""
    return next(other for other in groups if other.data == group.data)


def _row(group: Group, groups: list[Group], metric: str, rules: list[str]) -> dict[str, Any]:
    best = _best(group, groups)
    difference = None if group is best else compare(group, best, metric)
    return {
        "group": group,
        "best": group is best and group.spread("selected", metric).n > 0,
        "spreads": [group.spread(rule, metric) for rule in rules],
        "source": group.spread("selected", SOURCE),
        "n": len(group.done),
        "total": len(group.jobs),
        "difference": difference,
        "difference_text": _difference_text(difference),
    }


def _difference_text(difference: tuple[float, float | None, int] | None) -> str:
    if difference is None:
        return render.NONE
    mean, p, n = difference
    test = "" if p is None else f", p = {p:.3f}" if p >= 0.001 else ", p < 0.001"
    return f"{render.points(mean)} (n = {n}{test})"


def _winners(groups: list[Group], metric: str) -> list[dict[str, Any]]:
    """For each data the group in front, with the runner-up."""
    found = []
    for data in dict.fromkeys(group.data for group in groups):
        ranked = [g for g in groups if g.data == data and g.spread("selected", metric).n]
        if ranked:
            second = None if len(ranked) < 2 else ranked[1]
            found.append(
                {
                    "data": data,
                    "name": ranked[0].name,
                    "text": ranked[0].spread("selected", metric).text(),
                    "n": ranked[0].spread("selected", metric).n,
                    "second": second and f"{second.name} with {second.spread('selected', metric).text()} %",
                }
            )
    return found


def _states(jobs: list[Record]) -> list[dict[str, str]]:
    counts: dict[str, int] = {}
    for job in jobs:
        counts[job.state] = counts.get(job.state, 0) + 1
    kinds = {"completed": "good"}
    return [{"kind": kinds.get(state, "warn"), "text": f"{n} {state}"} for state, n in sorted(counts.items())]


def _unfinished(job: Record, path: Path) -> dict[str, Any]:
    return {
        "name": str(job.path.relative_to(path)),
        "overrides": " ".join(job.overrides),
        "state": job.state,
        "step": job.status.get("step"),
        "error": str(job.status.get("error") or render.NONE),
    }


def _job(job: Record, path: Path, metric: str, rules: list[str]) -> dict[str, Any]:
    folder = job.path.relative_to(path)
    return {
        "name": str(folder),
        "link": quote(f"{folder.as_posix()}/report.html") if job.run.report.exists() else None,
        "overrides": " ".join(job.overrides),
        "state": job.state,
        "values": [number(job.figures(rule).get(metric)) for rule in rules],
        "step": job.figures("selected").get("step"),
        "seconds": number(job.summary.get("train_seconds")),
    }


def _csv(groups: list[Group], metric: str, settings: list[str]) -> str:
    """One line per group, values in [0, 1] as in summary.json; empty where there is none."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n")
    columns = [f"{rule}/{metric}/{part}" for rule in RULES for part in ("mean", "std", "n")]
    source = [f"selected/{SOURCE}/{part}" for part in ("mean", "std")] if metric != SOURCE else []
    write.writerow(["data", "method", *settings, "jobs", "completed", "saw_target_labels", *columns, *source])
    for group in groups:
        cells: list[Any] = []
        for rule in RULES:
            spread = group.spread(rule, metric)
            cells += [spread.mean, spread.std, spread.n]
        if source:
            spread = group.spread("selected", SOURCE)
            cells += [spread.mean, spread.std]
        chosen = [group.settings.get(key, "") for key in settings]
        saw = str(group.saw_target_labels).lower()
        write.writerow([group.data, group.method, *chosen, len(group.jobs), len(group.done), saw, *cells])
    return out.getvalue()


def _markdown(rows: list[dict[str, Any]], metric: str, rules: list[str], settings: list[str]) -> str:
    def line(cells: list[str]) -> str:
        escaped = [cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ") for cell in cells]
        return "| " + " | ".join(escaped) + " |\n"

    header = ["data", "method", *settings, "n", *rules, "selected, against the best"]
    text = f"Mean ± standard deviation over seeds of {metric_name(metric)}, in percent.\n\n"
    text += line(header) + line(["---"] * len(header))
    for row in rows:
        group: Group = row["group"]
        done = str(row["n"]) if row["n"] == row["total"] else f"{row['n']} of {row['total']}"
        mark = "*" if group.saw_target_labels else ""
        cells = [group.data, group.method + mark, *(group.settings.get(key, "") for key in settings), done]
        text += line([*cells, *(spread.text() for spread in row["spreads"]), row["difference_text"]])
    if any(row["group"].saw_target_labels for row in rows):
        text += "\n\\* saw target labels in training or selection.\n"
    failed = [job for row in rows for job in row["group"].jobs if job.state != "completed"]
    if failed:
        text += "\nNot completed:\n\n" + line(["job", "state", "error"]) + line(["---"] * 3)
        for job in failed:
            text += line([job.path.name, job.state, str(job.status.get("error") or "")])
    return text
