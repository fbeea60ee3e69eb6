"""Every ratio of speed that tlrun is held to, in one run: medians, ranges and aims, in turn.

    TLRUN_DATA=... python scripts/bench.py [--parts loop commands ...] [--rounds 3]

loop      a step against the best of four bare loops, and against forward and backward alone;
          20 evaluations against training (bench_loop.py)
commands  a run of one step, `predict`, `evaluate` against `import torch, torchvision`
          (bench_commands.py)
pages     the page of a run by its kind, and the leaderboards of sweeps of 800 and 2,000 jobs
sweep     64 runs of 50 steps under joblib against their training alone (bench_sweep.py)
photos    the data path of photographs against torchvision's (bench_photos.py)
features  a phase on a frozen net with and without kept activations, on PACS (bench_features.py)
first     the README's first command against its training; minutes

CPU time on one thread, but for the last four: the wall clock of a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

import bench_commands
import bench_loop
import bench_sweep
from bench_commands import MODULE, cpu_seconds
from bench_lines import say

PARTS = ("loop", "commands", "pages", "sweep", "photos", "features", "first")
HERE = Path(__file__).parent
JOBS = (800, 2000)
AIMS = {"text": "", "light": "<= 0.7", "full": "<= 4"}  # of a run's page, by its kind
TEXT = "import scipy.stats"
LIGHT = f"{TEXT}, matplotlib.pyplot, matplotlib.backends.backend_agg"
LOADED = {"text": TEXT, "light": LIGHT, "full": f"{LIGHT}, sklearn.manifold"}  # by such a page


def pages(rounds: int) -> None:
    """CPU seconds of writing them, above the imports that each begins with."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        short = ["trainer.steps=40", "trainer.eval_every=2", "baseline=false", "report=none"]
        cpu_seconds([*MODULE, *short, "hydra.run.dir=run"], folder)
        write = "from pathlib import Path; from tlrun.report.pages.write import write_report"
        for kind, aim in AIMS.items():
            start, whole = list[float](), list[float]()
            for _ in range(rounds):
                start.append(cpu_seconds(["-c", f"{write}; {LOADED[kind]}"], folder))
                call = f"{LOADED[kind]}; write_report(Path('run'), kind='{kind}')"
                whole.append(cpu_seconds(["-c", f"{write}; {call}"], folder))
            say(f"page of a run, {kind}, with its imports", whole, 2, "CPU-s")
            more = [b - a for a, b in zip(start, whole, strict=True)]
            say(f"page of a run, {kind}, above the imports", more, 2, "CPU-s", aim)
        for count in JOBS:
            copies(folder / "run", folder / f"jobs{count}", count)
            seconds = [
                cpu_seconds([*MODULE, "report", f"jobs{count}"], folder) for _ in range(rounds)
            ]
            say(f"leaderboard of {count:,} jobs", seconds, 1, "CPU-s")
            shutil.rmtree(folder / f"jobs{count}")


def copies(run: Path, folder: Path, count: int) -> None:
    """A folder of `count` jobs: one run under several seeds and learning rates."""
    left = ("config.yaml", "overrides.yaml", "status.json", "summary.json", "metrics.jsonl")
    for i in range(count):
        job = folder / f"job{i}"
        job.mkdir(parents=True)
        for name in left:
            shutil.copy(run / name, job / name)
        seed, rate = i % 5, 0.001 + i // 5 * 1e-6
        config = (job / "config.yaml").read_text()
        config = config.replace("\nseed: 0\n", f"\nseed: {seed}\n")
        config = config.replace("lr: 0.001\n", f"lr: {rate:.6f}\n")
        (job / "config.yaml").write_text(config)
        summary = (job / "summary.json").read_text().replace('"seed": 0', f'"seed": {seed}')
        (job / "summary.json").write_text(summary)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", default="mnist_usps", help="of the loop")
    parser.add_argument("--steps", type=int, default=20, help="of the loop, in each round")
    options = parser.parse_args()
    rounds = ["--rounds", str(options.rounds)]
    if "loop" in options.parts:
        bench_loop.main([*rounds, "--data", options.data, "--steps", str(options.steps)])
    if "commands" in options.parts:
        bench_commands.main(rounds)
    if "pages" in options.parts:
        pages(options.rounds)
    if "sweep" in options.parts:
        bench_sweep.main(["--rounds", str((options.rounds + 1) // 2)])  # minutes each
    for part in ("photos", "features"):
        if part in options.parts:
            words = ["--rounds", str(options.rounds)] if part == "photos" else []
            free = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
            command = [sys.executable, str(HERE / f"bench_{part}.py"), *words]
            subprocess.run(command, env=free, check=True)
    if "first" in options.parts:
        with tempfile.TemporaryDirectory() as place:
            bench_commands.first_command(Path(place))


if __name__ == "__main__":
    main()
