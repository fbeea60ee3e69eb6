"""The training data path of photographs: tlrun's from memory and from files, against torchvision's.

    python scripts/bench_photos.py [FOLDER] [--rounds 3] [--size 128] [--batch 64]

FOLDER: images in a folder per class (default: 1,024 JPEGs of 227 x 227 pixels, made here). Each
gives normalised float32 batches, cropped at random, resized and mirrored, with labels:

    memory       Stream.batch on pixels decoded once, as below memory_gb
    files        Stream.batch on files, as beyond memory_gb, with trainer.workers=auto: each was
                 decoded once and is kept in the cache
    decoding     the same with TLRUN_CACHE_GB=0, as the first epoch and where the disk is too small
    torchvision  ImageFolder and DataLoader, a process a core that stay; their start is not counted
    tensors      the same with torchvision's own decoder and its transforms of uint8 tensors

A round takes a whole epoch of each, in changing order, after one that is not counted. Printed:
median and range of images a second and of the time of a core that an image takes in all processes,
which tells more where other programs run, and of both as multiples of torchvision's.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command; read when torch is loaded

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from tlrun.data.pipeline.augment import Augment
from tlrun.data.pipeline.prefetch import auto_workers
from tlrun.data.pipeline.preprocess import STATISTICS, Preprocess
from tlrun.data.pipeline.streams import Stream
from tlrun.data.sets.folder import folder
from tlrun.machine import cores

SMALLEST = 0.08  # share of the area of a crop, as ImageNet's
Epoch = Callable[[], int]  # -> images given


def main() -> None:
    options = arguments()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as place:
        os.environ["TLRUN_CACHE"] = f"{place}/cache"
        root = options.folder or make_photographs(Path(place) / "made")
        began = time.perf_counter()
        memory = tlrun_epoch(root, options, memory_gb=64.0)
        decoding = time.perf_counter() - began
        paths: dict[str, Epoch] = {
            "memory": memory,
            "files": tlrun_epoch(root, options, memory_gb=0.0),
            "decoding": tlrun_epoch(root, options, memory_gb=0.0, cache_gb=0.0),
            "torchvision": torchvision_epoch(root, options),
            "tensors": torchvision_epoch(root, options, tensors=True),
        }
        speeds: dict[str, list[float]] = {name: [] for name in paths}
        costs: dict[str, list[float]] = {name: [] for name in paths}
        for round_ in range(options.rounds + 1):
            for name in sorted(paths, reverse=bool(round_ % 2)):
                began, used = time.perf_counter(), core_seconds()
                count = paths[name]()
                if round_:  # the first round warms up
                    speeds[name].append(count / (time.perf_counter() - began))
                    costs[name].append(1000 * (core_seconds() - used) / count)
    print(
        f"{count:,} images an epoch, {options.size} px, batch {options.batch}; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; torch {torch.__version__}; "
        f"{decoding:.1f} s to decode all into memory"
    )
    for name, values in speeds.items():
        ratios = [ours / base for ours, base in zip(values, speeds["torchvision"], strict=True)]
        saved = [base / ours for ours, base in zip(costs[name], costs["torchvision"], strict=True)]
        print(
            f"{name:<11} {spread(values, 0)} images/s, {spread(ratios, 2)} times torchvision's; "
            f"{spread(costs[name], 2)} ms of a core, {spread(saved, 2)} times as cheap"
        )


def core_seconds() -> float:
    """Of this process and its workers; Linux tells of these."""
    files = [Path(f"/proc/{child.pid}/stat") for child in multiprocessing.active_children()]
    ticks = [int(t) for f in files for t in f.read_text().rpartition(")")[2].split()[11:13]]
    return time.process_time() + sum(ticks) / os.sysconf("SC_CLK_TCK")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    return parser.parse_args()


def make_photographs(root: Path, count: int = 1024, side: int = 227) -> Path:
    """Smooth colours with some grain, in two classes; about as many bytes as photographs have."""
    rng = np.random.default_rng(0)
    for i in range(count):
        colours = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        pixels = np.asarray(colours.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
        pixels = np.clip(pixels + rng.normal(0, 8, (side, side, 1)), 0, 255).astype(np.uint8)
        path = root / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)
    return root


def tlrun_epoch(
    root: Path, options: argparse.Namespace, memory_gb: float, cache_gb: float = 20.0
) -> Epoch:
    """The stream as a run with `data.augment.target={random_resized_crop: 0.08, flip: 0.5}`."""
    os.environ["TLRUN_CACHE_GB"] = str(cache_gb)
    stored = round(options.size * 8 / 7)  # what data.resize is by itself
    images = folder(size=stored, root=str(root), transductive=True, memory_gb=memory_gb).train
    stream = Stream(
        "target",
        images,
        batch_size=options.batch,
        seed=0,
        preprocess=Preprocess(images.shape, "imagenet", size=options.size, resize=stored),
        augment=Augment({"random_resized_crop": SMALLEST, "flip": 0.5}),
        workers=auto_workers(),
    )
    steps = len(images) // options.batch

    epochs = itertools.count()

    def epoch() -> int:
        first = next(epochs) * steps
        count = sum(len(stream.batch(step).x) for step in range(first, first + steps))
        if ahead := stream._prefetch:  # what is begun ends before the others are timed
            wait(task for tasks in ahead.pending.values() for task in tasks)
        return count

    return epoch


def torchvision_epoch(root: Path, options: argparse.Namespace, tensors: bool = False) -> Epoch:
    moves = [v2.RandomResizedCrop(options.size, (SMALLEST, 1.0)), v2.RandomHorizontalFlip()]
    floats = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    normalize = v2.Normalize(*STATISTICS["imagenet"])
    images = ImageFolder(str(root), v2.Compose([*moves, *floats, normalize]))
    if tensors:
        images.loader = partial(decode_image, mode=ImageReadMode.RGB)
    kept = {"num_workers": cores(), "persistent_workers": True}
    loader = DataLoader(images, options.batch, shuffle=True, drop_last=True, **kept)
    return lambda: sum(len(x) for x, _ in loader)


def spread(values: list[float], digits: int) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


if __name__ == "__main__":
    main()
