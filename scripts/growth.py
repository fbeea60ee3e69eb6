"""How time and memory grow: images, classes, jobs, evaluations. Tables for docs/scale.md.

    python scripts/growth.py                     # all, minutes
    python scripts/growth.py classes evaluations --most 1000

Each measurement is a process of its own, forked from one that has imported all: CPU seconds, so
that other work on the machine counts little, and the growth of its peak memory. The exponent is the
slope between the last two sizes on logarithmic axes: 1 = linear. `scanned` has no pixels: a store
stands in for the files, so that sets may be larger than the disk.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from bench import copies
from bench_commands import MODULE, cpu_seconds
from PIL import Image
from torch import Tensor

from tlrun.config.compose import compose
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.pixels import TensorPixels
from tlrun.data.examples.splits import Card, cut
from tlrun.data.pipeline.streams import Stream
from tlrun.data.sets.features import features
from tlrun.data.sets.folder import folder
from tlrun.engine.selection_checkpoints import SelectionCheckpoints
from tlrun.evaluate import metrics, selection
from tlrun.evaluate.validators import SetOutput, compute_validators
from tlrun.report.pages.write import write_leaderboard
from tlrun.run_folder.metrics_file import append_row, read_rows
from tlrun.run_folder.run_dir import RunDir
from tlrun.sweep import progress

Timed = Callable[[], object]
Prepared = Callable[[int, Path], Timed]  # makes what is measured, not timed; returns what is


# ---- images -------------------------------------------------------------------------------------


def feature_file(count: int, place: Path) -> Timed:
    """Read a file of features, cut it, and take the first 100 batches."""
    x = np.random.default_rng(0).normal(size=(count, 64)).astype(np.float32)
    np.savez(place / "x.npz", features=x, labels=np.arange(count) % 10)
    del x
    return lambda: hundred_batches(features(path=str(place / "x.npz")).train)


def image_files(count: int, place: Path) -> Timed:
    """List, hash, read and cut a folder of small images; 100 batches."""
    colours = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    for number, pixels in enumerate(colours):
        home = place / "images" / f"class{number % 10}"
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(home / f"{number:07d}.bmp")
    return lambda: hundred_batches(folder(root=str(place / "images"), size=4).train)


def scanned(count: int, place: Path) -> Timed:
    """Cut a set of so many named images by class shares; 100 batches. One pixel stands for all."""
    store = TensorPixels(torch.zeros(1, 3, 4, 4, dtype=torch.uint8).expand(count, 3, 4, 4))
    labels = torch.arange(count) % 10
    paths = [f"class{number % 10}/{number:07d}.jpg" for number in range(count)]
    examples = ImageSet("scanned", store, labels, [str(k) for k in range(10)], paths)
    return lambda: hundred_batches(cut(examples, Card("scanned", "", ""), 0, stratify=True).train)


def hundred_batches(examples: ImageSet) -> None:
    stream = Stream("source", examples, batch_size=64, seed=0, preprocess=Tensor.float)
    for step in range(100):
        stream.batch(step)


# ---- classes ------------------------------------------------------------------------------------


def scores(count: int, place: Path) -> Timed:
    """Figures of 10,000 predictions over so many classes."""
    draw = torch.Generator().manual_seed(0)
    predictions, labels = torch.randint(count, (2, 10_000), generator=draw)

    def measured() -> None:
        metrics.per_class_accuracy(predictions, labels, count)
        metrics.macro_f1(predictions, labels, count)
        metrics.effective_classes(predictions, count)

    return measured


def validators(count: int, place: Path) -> Timed:
    """All validators on 1,000 images of each domain, 64 features, so many classes."""
    draw = torch.Generator().manual_seed(0)

    def output() -> SetOutput:
        labels = torch.randint(count, (1000,), generator=draw)
        x, logits = (torch.randn(1000, width, generator=draw) for width in (64, count))
        return SetOutput(x, logits, labels)

    sets = {name: output() for name in ("source_train", "source_val", "target_train")}
    return lambda: compute_validators(sets, max_images=1000, seed=0)


# ---- jobs ---------------------------------------------------------------------------------------


def composing(count: int, place: Path) -> Timed:
    """Compose the configurations of so many jobs, as the processes of a launcher do."""

    def measured() -> None:
        for seed in range(count):
            compose([f"seed={seed}"])

    return measured


def bar(count: int, place: Path) -> Timed:
    """Ten looks of a sweep's bar at so many running jobs."""
    for number in range(count):
        run = RunDir(place / f"job{number:05d}")
        run.path.mkdir()
        run.config.write_text("seed: 0\n")
        run.set_status("running")
    progress.SECONDS, progress.say = 1e9, lambda *_, **__: None  # type: ignore[assignment]
    watch = progress.SweepProgress(place, count, elsewhere=True)

    def measured() -> None:
        for _ in range(10):
            watch.look()

    return measured


def leaderboard(count: int, place: Path) -> Timed:
    """The leaderboard of a sweep of so many jobs of 40 steps, its page and its tables."""
    import matplotlib.pyplot  # noqa: F401  # a second and more, whatever the number of jobs

    run = place / "run"
    words = ["trainer.steps=40", "trainer.eval_every=2", "baseline=false", "report=none"]
    cpu_seconds([*MODULE, *words, f"hydra.run.dir={run}"], place)
    copies(run, place / "sweep", count)
    return lambda: write_leaderboard(place / "sweep")


# ---- evaluations --------------------------------------------------------------------------------


def row(step: int, draw: random.Random) -> dict[str, Any]:
    keys = (selection.SOURCE, "validator/information_maximization", "oracle/target_test/accuracy")
    return {"step": step, "phase": "train", "split": "eval", **{key: draw.random() for key in keys}}


def choosing(count: int, place: Path) -> Timed:
    """What of so many evaluations may still be chosen, asked after each as training does."""
    draw, log = random.Random(0), SimpleNamespace(rows=[])
    setup: Any = SimpleNamespace(
        run_dir=SimpleNamespace(checkpoints=place),
        rules=["information_maximization", "oracle"],
        guard=selection.Guard(10),
        competing=lambda rows, rule: rows,
        choose=None,
    )
    kept: Any = SelectionCheckpoints(setup, log)  # type: ignore[arg-type]

    def measured() -> None:
        for step in range(count):
            log.rows.append(row(step, draw))
            kept.waiting()

    return measured


def rows(count: int, place: Path) -> Timed:
    """Write so many rows of metrics.jsonl and read them once."""
    draw = random.Random(0)

    def measured() -> None:
        for step in range(count):
            append_row(place / "metrics.jsonl", row(step, draw))
        read_rows(place / "metrics.jsonl")

    return measured


# ---- measuring ----------------------------------------------------------------------------------

SERIES: dict[str, dict[Prepared, tuple[int, ...]]] = {
    "images": {
        feature_file: (1000, 10_000, 100_000, 1_000_000),
        image_files: (1000, 10_000),
        scanned: (1000, 10_000, 100_000, 1_000_000),
    },
    "classes": {scores: (10, 100, 1000, 10_000), validators: (10, 100, 1000, 10_000)},
    "jobs": {composing: (10, 50), bar: (20, 200, 2000), leaderboard: (80, 800, 2000)},
    "evaluations": {choosing: (100, 1000, 10_000), rows: (100, 1000, 10_000)},
}


def measure(prepare: Prepared, count: int) -> tuple[float, float]:
    """(CPU seconds, MB that the peak memory grows by), in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        place = Path(tempfile.mkdtemp(prefix="growth_"))
        try:
            timed = prepare(count, place)
            memory, began = peak_mb(), time.process_time()
            timed()
            answer = [time.process_time() - began, peak_mb() - memory]
            os.write(writing, json.dumps(answer).encode())
        finally:
            shutil.rmtree(place, ignore_errors=True)
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        seconds, memory = json.loads(pipe.read())
    return seconds, memory


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def exponent(sizes: list[int], values: list[float]) -> str:
    if len(sizes) < 2 or min(values[-2:]) <= 0:
        return ""
    return f"{math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2]):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=", ".join(SERIES))
    parser.add_argument("--most", type=int, default=1_000_000, help="no larger size than this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a thread would not survive the fork
    for axis in arguments.axes or SERIES:
        print(
            f"\n| {axis} | what | " + "CPU-s at each size | exponent | MB |\n|---|---|---|---|---|"
        )
        for prepare, all_sizes in SERIES[axis].items():
            sizes = [size for size in all_sizes if size <= arguments.most]
            measured = [measure(prepare, size) for size in sizes]
            seconds = [entry[0] for entry in measured]
            print(
                f"| {', '.join(f'{size:,}' for size in sizes)} | {(prepare.__doc__ or '').strip()} "
                f"| {', '.join(f'{value:.3g}' for value in seconds)} | {exponent(sizes, seconds)} "
                f"| {', '.join(f'{memory:.0f}' for _, memory in measured)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
