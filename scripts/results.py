"""Run the presets of conf/experiment as their headers say, and write docs/results.md.

    python scripts/results.py [--only digits/cdan mnist_mnistm ...] [--seeds 0] [--jobs 2]
    python scripts/results.py --write      # the tables alone, from what is there
    python scripts/results.py --write --older    # and from runs of other code than today's

A preset's `# command:` line says which recipes and seeds it is run on. Each run lies in
OUT/<preset>[/<recipe>]/seed<k>; a finished one is skipped, an interrupted one resumed, so this can
be stopped and started at will. The first seed of everything comes before the second.

A row of the table is made of runs of this checkout's code (the rooms that decide figures); where
others lie there, they are counted and named, and the row stays as docs/results.md has it. A row of
fewer than three seeds stands below the ranked ones. From the table the figures are copied into the
headers of the presets and into both READMEs (`results_copies.py`), and what the headers say of the
effect of each family is gathered and drawn (`results_effects.py`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import results_copies
import results_effects
from results_copies import PRESETS, RANKED, ROOT

TABLE = ROOT / "docs" / "results.md"
CURVES = ROOT / "docs" / "digits_time.png"
ACCURACY = "target_test/accuracy"
BOUNDS = {"source_only": ":", "target_only": "--"}  # and how their curves are drawn
BEST = 5  # curves in a panel, beside the bounds
DECISIVE = ("data", "engine", "evaluate", "losses", "methods", "models")  # rooms of the package


@dataclass(frozen=True)
class Row:
    """A line of a table: a preset, on one of its recipes or on the data it names itself."""

    preset: str
    recipe: str = ""
    seeds: tuple[int, ...] = (0,)

    @property
    def name(self) -> str:
        return f"{self.preset}/{self.recipe}" if self.recipe else self.preset

    def folder(self, out: Path, seed: int) -> Path:
        return out / self.name / f"seed{seed}"

    def summaries(self, out: Path) -> list[dict[str, Any]]:
        return [read_json(f / "summary.json") for f in self.finished(out)]

    def finished(self, out: Path) -> list[Path]:
        folders = [self.folder(out, seed) for seed in self.seeds]
        return [folder for folder in folders if state_of(folder) == "completed"]

    def published(self) -> str:
        """That of the header: one figure, or `MNIST→USPS 95.6, ...` by pair."""
        found = re.search(r"^# published: +(.*)", text_of(self.preset), re.MULTILINE)
        pattern = rf"{re.escape(_title(self.recipe))} ([\d.-]+)" if self.recipe else r"^([\d.-]+)"
        figure = re.search(pattern, found[1]) if found else None
        return figure[1] if figure else "–"


def _title(recipe: str) -> str:
    """mnist_usps_mnistm_blend -> MNIST+USPS→MNIST-M."""
    words = recipe.upper().replace("MNISTM", "MNIST-M").split("_")
    *sources, target = [word for word in words if word.startswith(("MNIST", "USPS"))]
    return f"{'+'.join(sources)}→{target}"


def text_of(preset: str) -> str:
    return (PRESETS / f"{preset}.yaml").read_text(encoding="utf-8")


def rows_of(preset: str) -> list[Row]:
    """The rows that the preset's own command asks for."""
    found = re.search(r"^# command: +(.*)", text_of(preset), re.MULTILINE)
    words = dict(word.partition("=")[::2] for word in shlex.split(found[1] if found else ""))
    seeds = tuple(int(seed) for seed in words.get("seed", "0").split(","))
    return [Row(preset, recipe, seeds) for recipe in words.get("recipe", "").split(",")]


def read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def state_of(folder: Path) -> str:
    try:
        return str(read_json(folder / "status.json")["state"])
    except (OSError, ValueError, KeyError):
        return "absent"


# ---- running ------------------------------------------------------------------------------------


def run(row: Row, seed: int, folder: Path, overrides: list[str]) -> None:
    state = state_of(folder)
    if state == "completed":
        return
    if state == "absent":
        recipe = [f"recipe={row.recipe}"] if row.recipe else []
        words = [f"experiment={row.preset}", *recipe, f"seed={seed}", "baseline=false"]
        words += [f"hydra.run.dir={folder}", *overrides]
    else:
        words = ["resume", str(folder)]
    done = subprocess.run([sys.executable, "-m", "tlrun", *words], capture_output=True, text=True)
    print(f"{row.name} seed {seed}: {'done' if done.returncode == 0 else words}", flush=True)
    if done.returncode:
        print("\n".join(done.stderr.splitlines()[-14:]), flush=True)


def jobs(rows: list[Row], seeds: list[int] | None) -> Iterator[tuple[Row, int]]:
    """The first seed of every row, then the second."""
    for nth in itertools.takewhile(
        lambda k: any(k < len(r.seeds) for r in rows), itertools.count()
    ):
        for row in rows:
            if nth < len(row.seeds) and (seeds is None or row.seeds[nth] in seeds):
                yield row, row.seeds[nth]


# ---- writing ------------------------------------------------------------------------------------


def spread(values: list[float]) -> str:
    """In per cent; one run has no spread."""
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def code_of(folder: Path) -> list[dict[str, str]]:
    """Hashes of the rooms that decide figures, of each sitting that trained a run."""
    read = read_json(folder / "environment.json")
    every = [read, *read.get("earlier", ())]
    return [decisive((each.get("code") or {}).get("tlrun") or {}) for each in every]


def decisive(hashes: dict[str, str]) -> dict[str, str]:
    return {room: hashes.get(f"tlrun/{room}", "") for room in DECISIVE}


def line(row: Row, out: Path, older: bool) -> str | None:
    """Its line in the table; None where it has no run, or one of other code than this checkout's
    unless `older`."""
    from tlrun.run_folder.environment import source_hashes

    found, today = row.finished(out), decisive(source_hashes())
    others = [] if older else [f for f in found if any(c != today for c in code_of(f))]
    if others:
        print(
            f"{row.name}: {len(others)} of {len(found)} runs are of other code than today's, so "
            f"the row is not written; remove {others[0].parent} to train them anew, or give "
            "--older",
            file=sys.stderr,
        )
    if others or not found:
        return None
    summaries = row.summaries(out)
    rules = [spread([s[rule][ACCURACY] for s in summaries]) for rule in ("selected", "last")]
    sources = [s["selected"].get("source_test/accuracy") for s in summaries]
    oracle = spread([s["oracle"][ACCURACY] for s in summaries])
    source = "–" if None in sources else spread(sources)
    spent: dict[str, list[float]] = {}  # by device: their minutes have no mean in common
    for folder, summary in zip(row.finished(out), summaries, strict=True):
        spent.setdefault(device_of(folder), []).append(summary["train_seconds"] / 60)
    minutes = "/".join(f"{statistics.mean(spent[device]):.1f}" for device in sorted(spent))
    seen = summaries[0]["images_seen"]
    cells = [f"`{row.name}`", str(len(summaries)), *rules, oracle, source]
    cells += [row.published(), f"{seen:,}", minutes, "/".join(sorted(spent))]
    return "| " + " | ".join(cells) + " |"


def device_of(folder: Path) -> str:
    """What a run was trained on: "H100" or "CPU"."""
    name = read_json(folder / "environment.json").get("device") or "cpu"
    if name == "cpu":
        return "CPU"
    return next((w for w in name.split() if w not in ("NVIDIA", "GeForce", "Tesla")), "GPU")


def validators(rows: list[Row], out: Path) -> list[str]:
    """Mean loss of every rule against the oracle over all runs of some rows."""
    from tlrun.report.read.run_record import read_record
    from tlrun.report.statistics.regrets import judge

    losses: dict[str, list[float]] = {}
    ranks: dict[str, list[float]] = {}
    for folder in (folder for row in rows for folder in row.finished(out)):
        for choice in judge(read_record(folder)):
            losses.setdefault(choice.rule, []).append(100 * choice.loss)
            if choice.spearman is not None:
                ranks.setdefault(choice.rule, []).append(choice.spearman)
    table = [
        "| rule | points lost to the oracle | worst run | Spearman | runs |",
        "|---|---|---|---|---|",
    ]
    for rule, found in sorted(losses.items(), key=lambda item: statistics.mean(item[1])):
        rank = f"{statistics.mean(ranks[rule]):+.2f}" if rule in ranks else "–"
        cells = [f"{statistics.mean(found):.2f}", f"{max(found):.1f}", rank, str(len(found))]
        table.append(f"| `{rule}` | " + " | ".join(cells) + " |")
    return table


def draw_time(rows: list[Row], out: Path, path: Path) -> None:
    """Target test accuracy against training time on a CPU: each pair's best rows and the bounds.

    Rows that ran on a GPU alone are left out: minutes of two devices have no axis in common.
    """
    from tlrun.report.figures.style import LINES, QUIET, figure

    pairs = list(dict.fromkeys(_title(row.recipe) for row in rows))
    with figure(path, 3.2 * len(pairs), rows=len(pairs)) as (_, axes):
        for ax, pair in zip(axes[:, 0], pairs, strict=True):
            here = {row: on_cpu(row, out) for row in rows if _title(row.recipe) == pair}
            ranked = sorted((r for r, f in here.items() if f), key=lambda r: -_mean(r, out))
            bounds = [r for r in ranked if r.preset.split("/")[-1] in BOUNDS]
            best = [r for r in ranked if r not in bounds][:BEST]
            for i, row in enumerate([*best, *bounds]):
                curve = _curve(here[row][0])
                colour = LINES[i] if row in best else QUIET
                stroke = BOUNDS.get(row.preset.split("/")[-1], "-")
                label = f"{row.preset.split('/')[-1]}: {100 * _mean(row, out):.1f}"
                ax.plot(*zip(*curve, strict=True), color=colour, label=label, ls=stroke, lw=1.6)
            ax.set(title=pair, ylabel="target test, %", ylim=(70, 100.5), xlim=(0, None))
            ax.legend(loc="lower right")
        axes[-1, 0].set_xlabel("training time, minutes on one core of a busy machine")


def on_cpu(row: Row, out: Path) -> list[Path]:
    return [folder for folder in row.finished(out) if device_of(folder) == "CPU"]


def _mean(row: Row, out: Path) -> float:
    return statistics.mean(s["selected"][ACCURACY] for s in row.summaries(out))


def _curve(folder: Path) -> list[tuple[float, float]]:
    """(minutes, accuracy in %) of every evaluation; a step takes its share of the whole time."""
    summary = read_json(folder / "summary.json")
    minutes = summary["train_seconds"] / summary["steps"] / 60
    logged = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    key = "oracle/target_test_accuracy"
    return [(r["step"] * minutes, 100 * r[key]) for r in logged if r.get(key) is not None]


def rank(text: str) -> tuple[bool, float, str]:
    """The order of a line of the table: those of few seeds last, equal ones by name."""
    cells = text.split("|")
    return int(cells[2]) < RANKED, -float(cells[3].split()[0]), cells[1]


def counts(lines: list[str]) -> list[str]:
    """How many of the rows have how many seeds."""
    few = sum(rank(text)[0] for text in lines)
    return [
        f"{len(lines)} rows: {len(lines) - few} of {RANKED} seeds or more, {few} of fewer, which "
        "are not ranked."
    ]


def write(out: Path, older: bool) -> None:
    """docs/results.md: the parts between the markers."""
    text = TABLE.read_text(encoding="utf-8")
    known = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    titles = (
        "preset | n | selected | last | oracle | source test | published | images seen "
        "| minutes | on"
    )
    head = [f"| {titles} |", "|" + "---|" * len(titles.split("|"))]
    rows = [row for preset in presets() for row in rows_of(preset)]
    found = {row: line(row, out, older) or known.get(row.name) for row in rows}
    parts = {"table": [*head, *(text for row, text in found.items() if text and not row.recipe)]}
    for recipe in dict.fromkeys(row.recipe for row in rows if row.recipe):
        lines = [text for row, text in found.items() if text and row.recipe == recipe]
        parts[recipe] = (
            ["No run yet."]
            if not lines
            else [
                *head,
                *sorted(lines, key=rank),
            ]
        )
    effects = results_effects.effects()
    parts["effects"] = results_effects.table(effects)
    results_effects.draw(effects)
    parts["counts"] = counts([text for text in found.values() if text])
    compared = [row for row in rows if row.recipe]
    if any(row.finished(out) for row in compared):
        parts["validators"] = validators(compared, out)
        draw_time([row for row in compared if on_cpu(row, out)], out, CURVES)
    for name, lines in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if begin not in text:
            print(f"docs/results.md has no place for {begin}", file=sys.stderr)
            continue
        text = "\n".join([text.split(begin)[0] + begin, *lines, end + text.split(end)[1]])
    TABLE.write_text(text, encoding="utf-8")
    by_name = results_copies.rows_of(text)
    results_copies.write_headers(
        (
            PRESETS / f"{row.preset}.yaml",
            by_name[row.name],
            _title(row.recipe) if row.recipe else "",
        )
        for row in rows
        if row.name in by_name
    )
    results_copies.write_readmes(by_name)
    print("\n".join(line for lines in parts.values() for line in lines))


def presets() -> list[str]:
    return sorted(str(p.relative_to(PRESETS).with_suffix("")) for p in PRESETS.rglob("*.yaml"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "results")
    parser.add_argument("--only", nargs="*", help="presets or folders of them, all by default")
    parser.add_argument("--recipes", nargs="*", help="of presets that run on several")
    parser.add_argument("--seeds", nargs="*", type=int, help="of those in the headers")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; give each its threads")
    parser.add_argument("--set", nargs="*", default=[], help="overrides, as trainer.threads=1")
    parser.add_argument("--write", action="store_true", help="only write the tables")
    parser.add_argument("--older", action="store_true", help="write runs of other code, too")
    options = parser.parse_args()
    if not options.write:
        wanted = [p for p in presets() if options.only is None or _under(p, options.only)]
        rows = [row for preset in wanted for row in rows_of(preset)]
        rows = [r for r in rows if options.recipes is None or r.recipe in options.recipes]
        with ThreadPoolExecutor(options.jobs) as pool:
            for row, seed in jobs(rows, options.seeds):
                pool.submit(run, row, seed, row.folder(options.out, seed), options.set)
    write(options.out, options.older)


def _under(preset: str, chosen: list[str]) -> bool:
    return any(preset == name or preset.startswith(f"{name.rstrip('/')}/") for name in chosen)


if __name__ == "__main__":
    main()
