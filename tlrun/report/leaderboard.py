"""The leaderboard of a sweep: leaderboard.csv, leaderboard.md and report.html over its jobs."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tlrun.report import render
from tlrun.report.axes import draw_axes
from tlrun.report.groups import SOURCE, Group, compare, group_jobs, metric_name, primary_metric
from tlrun.report.record import RULES, Record, is_run, number, read_record
from tlrun.report.regrets import over_runs
from tlrun.report.style import Missing
from tlrun.report.sweep_curves import draw_learning_curves
from tlrun.run_dir import write_atomic


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
    path = Path(path)
    jobs = [read_record(folder) for folder in find_jobs(path)]
    groups = group_jobs(jobs)
    metric = primary_metric(jobs)
    rules = [
        rule
        for rule in ("selected", "last", "oracle")
        if any(g.spread(rule, metric).n for g in groups)
    ]
    groups = _ranked(groups, metric)
    picture = path / "plots" / "learning_curves.png"
    try:
        draw_learning_curves(groups, picture)
    except Missing:
        picture.unlink(missing_ok=True)
    rows = [_row(group, groups, metric, rules) for group in groups]
    settings = list(dict.fromkeys(key for group in groups for key in group.settings))
    write_atomic(path / "leaderboard.csv", _csv(groups, metric, settings))
    write_atomic(path / "leaderboard.md", _markdown(rows, metric, rules, settings))
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
        validators=over_runs(jobs),
        axes=draw_axes(groups, metric, path / "plots"),
        unfinished=[_unfinished(job, path) for job in jobs if job.state != "completed"],
        jobs=[_job(job, path, metric, rules) for job in jobs],
        warn=any(group.saw_target_labels for group in groups),
        resume=render.command("resume", str(path.resolve())),
    )
    write_atomic(path / "report.html", html)
    return path / "report.html"


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
                    "second": second
                    and f"{second.name} with {second.spread('selected', metric).text()} %",
                }
            )
    return found


def _states(jobs: list[Record]) -> list[dict[str, str]]:
    counts: dict[str, int] = {}
    for job in jobs:
        counts[job.state] = counts.get(job.state, 0) + 1
    kinds = {"completed": "good"}
    return [
        {"kind": kinds.get(state, "warn"), "text": f"{n} {state}"}
        for state, n in sorted(counts.items())
    ]


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
    write.writerow(
        ["data", "method", *settings, "jobs", "completed", "saw_target_labels", *columns, *source]
    )
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
        write.writerow(
            [group.data, group.method, *chosen, len(group.jobs), len(group.done), saw, *cells]
        )
    return out.getvalue()


def _markdown(
    rows: list[dict[str, Any]], metric: str, rules: list[str], settings: list[str]
) -> str:
    def line(cells: list[str]) -> str:
        escaped = [
            cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ") for cell in cells
        ]
        return "| " + " | ".join(escaped) + " |\n"

    header = ["data", "method", *settings, "n", *rules, "selected, against the best"]
    text = f"Mean ± standard deviation over seeds of {metric_name(metric)}, in percent.\n\n"
    text += line(header) + line(["---"] * len(header))
    for row in rows:
        group: Group = row["group"]
        done = str(row["n"]) if row["n"] == row["total"] else f"{row['n']} of {row['total']}"
        mark = "*" if group.saw_target_labels else ""
        cells = [
            group.data,
            group.method + mark,
            *(group.settings.get(key, "") for key in settings),
            done,
        ]
        text += line(
            [
                *cells,
                *(spread.text() for spread in row["spreads"]),
                "best" if row["best"] else row["difference_text"],
            ]
        )
    if any(row["group"].saw_target_labels for row in rows):
        text += "\n\\* saw target labels in training or selection.\n"
    failed = [job for row in rows for job in row["group"].jobs if job.state != "completed"]
    if failed:
        text += "\nNot completed:\n\n" + line(["job", "state", "error"]) + line(["---"] * 3)
        for job in failed:
            text += line([job.path.name, job.state, str(job.status.get("error") or "")])
    return text
