"""What commands cost beside loading their libraries, in CPU seconds, in turn.

    python scripts/bench_commands.py [--rounds 3] [--first]

Ratios to `python -c "import torch, torchvision"`: a run of one step on bundled data without page,
`predict` and `evaluate` of one image with it. `--first`: also `tlrun` as the README begins, against
its training; minutes. CPU time of a command and all its processes is counted, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_lines import ratios, say
from PIL import Image

IMPORTS = ["-c", "import torch, torchvision"]
MODULE = ["-m", "tlrun"]
AIMS = {"one step": "<= 2", "predict": "<= 1.6", "evaluate": "<= 1.6"}


def cpu_seconds(words: list[str], folder: Path) -> float:
    """Of `python WORDS` in `folder`. Raises RuntimeError with what it said if it fails."""
    before = _of_children()
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return _of_children() - before


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def commands(folder: Path) -> dict[str, list[str]]:
    """What is measured, by name. Makes what predict and evaluate need."""
    short = ["trainer.steps=1", "baseline=false", "report=none"]
    run = "trained"
    cpu_seconds([*MODULE, *short, f"hydra.run.dir={run}"], folder)
    picture = folder / "one" / "0" / "image.png"
    picture.parent.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    return {
        "import": IMPORTS,
        "one step": [*MODULE, *short],
        "predict": [*MODULE, "predict", run, str(picture)],
        "evaluate": [*MODULE, "evaluate", run],
    }


def first_command(folder: Path) -> None:
    """`tlrun` alone, once: its wall time against that of its training."""
    cpu_seconds([*MODULE, "hydra.run.dir=first"], folder)
    parts = json.loads((folder / "first" / "summary.json").read_text())["wall_seconds"]
    baseline = json.loads((folder / "first" / "baseline" / "summary.json").read_text())
    training = parts["training"] + baseline["wall_seconds"]["training"]
    print(f"the first command: {parts}")
    name = "the first command by the clock, times its training and its baseline's"
    say(name, [parts["total"] / training], 2, aim="<= 1.35")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--first", action="store_true", help="the README's first command, too")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        measured = commands(folder)
        found: dict[str, list[float]] = {name: [] for name in measured}
        for round_ in range(options.rounds):
            for name in sorted(measured, reverse=bool(round_ % 2)):
                found[name].append(cpu_seconds(measured[name], folder))
        for name, seconds in found.items():
            say(name, seconds, 2, "CPU-s")
        for name, aim in AIMS.items():
            times = ratios(found[name], found["import"])
            say(f"{name}, times the import of torch and torchvision", times, 2, aim=aim)
        if options.first:
            first_command(folder)


if __name__ == "__main__":
    main()
