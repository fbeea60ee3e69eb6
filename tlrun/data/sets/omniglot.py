"""Omniglot (Lake, Salakhutdinov, Tenenbaum, Science 2015): 1,623 characters, 20 drawings of each.

split=vinyals   all characters in a fixed random order: 1,028 base, 172 validation, 423 novel (the
                counts of Vinyals et al. 2016 and Snell et al. 2017; their own lists of names are
                not part of the data, so the order is a fixed one of ours, whatever the seed)
split=lake      the author's: "background" is base (100 characters of it validation), "evaluation"
                novel; with his 20 runs of 20-way one-shot classification on top. The runs are
                drawn from "evaluation", so vinyals, which trains on part of it, leaves them out.

Drawings (105x105, black on white) are resized; rotations=4 makes turns by 90 degrees classes of
their own, after the split, so no character is in two of the sets.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image

from tlrun.config.ranges import Pixels, Range
from tlrun.data.examples.download import Remote, cached_images, fetch, file_md5
from tlrun.data.examples.fit import fit_image
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Card
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.problems.episodes import ClassSplits, FixedEpisodes, rotated, split_classes
from tlrun.errors import ConfigError, DataError, did_you_mean
from tlrun.files.archives import open_zip

CITATION = "Lake, Salakhutdinov, Tenenbaum, Human-level concept learning, Science 2015"
URL = "https://github.com/brendenlake/omniglot"
RAW = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
MD5 = {  # as published by the author
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
    "all_runs": "e8996daecdf12afeeb4a53a179f06b19",
}
COUNTS = {"images_background": 19280, "images_evaluation": 13180}
DRAWINGS = 20
SPLITS = {"vinyals": (1028, 172, 423), "lake": (864, 100, 659)}
RUNS, RUN_WAY = 20, 20


def omniglot(
    *,
    seed: int = 0,
    size: Pixels = 28,
    split: str = "vinyals",
    rotations: Annotated[int, Range(1, 4)] = 4,
) -> ClassSplits:
    """Independent of `seed`. Raises ConfigError or DataError."""
    if split not in SPLITS:
        raise ConfigError(f"data.classes.split={split}: {did_you_mean(split, SPLITS)}")
    pixels, names, places = [], [], []
    for archive in COUNTS:
        path = _file(archive)
        members = _drawings(path, archive)
        pixels.append(_pixels(path, members, size))
        names += sorted({member.rpartition("/")[0] for member in members})
        places += members
    number = {name: i for i, name in enumerate(names)}
    labels = torch.tensor([number[place.rpartition("/")[0]] for place in places])
    characters = [name.partition("/")[2] for name in names]
    examples = ImageSet("omniglot", torch.cat(pixels), labels, characters)
    sets = [rotated(s, rotations) for s in split_classes(examples, _groups(split, names))]
    card = Card("omniglot", CITATION, "MIT", URL, str(_file("images_background").parent))
    fixed = (_runs(_file("all_runs"), size),) if split == "lake" else ()
    return ClassSplits(sets[0], sets[1], sets[2], card, fixed=fixed)


def _file(archive: str) -> Path:
    """The zip as the author names it, or packed anew (`.repacked.zip`: the same pictures)."""
    folder = "one-shot-classification/" if archive == "all_runs" else ""
    places = [f"omniglot/{folder}{archive}{end}" for end in (".zip", ".repacked.zip")]
    needs = ("omniglot/images_background.zip", "omniglot/images_evaluation.zip")
    url = RAW.replace("python/", "python/one-shot-classification/") if folder else RAW
    remote = Remote((*places, f"{archive}.zip"), MD5[archive], (f"{url}{archive}.zip",), needs)
    return fetch("Omniglot", remote)


def _drawings(path: Path, archive: str) -> list[str]:
    """Members <archive>/<alphabet>/<character>/<drawing>.png in order. DataError if not all."""
    with open_zip(path) as file:
        members = sorted(n for n in file.namelist() if n.endswith(".png") and n[0] != "_")
    if len(members) != COUNTS[archive]:
        raise DataError(
            f"'{path}' holds {len(members)} drawings instead of {COUNTS[archive]}; replace it."
        )
    return members


def _pixels(path: Path, members: Sequence[str], size: int) -> torch.Tensor:
    """uint8 (n, 1, size, size), from the cache."""

    def decode() -> np.ndarray:
        out = np.empty((len(members), 1, size, size), np.uint8)
        with open_zip(path) as file:
            for i, member in enumerate(members):
                with Image.open(io.BytesIO(file.read(member))) as image:
                    out[i, 0] = np.asarray(fit_image(image.convert("L"), size, "squash"))
        return out

    return cached_images(f"omniglot-{path.name}", (file_md5(path), size), decode)


def _groups(split: str, names: Sequence[str]) -> list[list[int]]:
    """Class numbers of base, validation and novel characters."""
    base, val, _ = SPLITS[split]
    if split == "lake":
        background = [i for i, name in enumerate(names) if name.startswith("images_background")]
        order = [background[i] for i in permutation(len(background), "omniglot", split).tolist()]
        order += [i for i in range(len(names)) if i not in set(background)]
    else:
        order = permutation(len(names), "omniglot", split).tolist()
    return [sorted(order[:base]), sorted(order[base : base + val]), sorted(order[base + val :])]


def _runs(path: Path, size: int) -> FixedEpisodes:
    """Lake's 20 runs: 20 training images, one of each class, and 20 test images."""
    with open_zip(path) as file:
        tables = [f"run{r:02d}/class_labels.txt" for r in range(1, RUNS + 1)]
        pairs = [line.split() for t in tables for line in file.read(t).decode().splitlines()]
    tests = [test for test, _ in pairs]
    trained = [
        f"run{r:02d}/training/class{c:02d}.png"
        for r in range(1, RUNS + 1)
        for c in range(1, RUN_WAY + 1)
    ]
    images = _pixels(path, [*trained, *tests], size)
    index = torch.arange(len(images)).reshape(2, RUNS, RUN_WAY)
    answers = torch.tensor(
        [int(Path(answer).stem.removeprefix("class")) - 1 for _, answer in pairs]
    )
    support_labels = torch.arange(RUN_WAY).repeat(RUNS, 1)
    return FixedEpisodes(
        "lake_20way_1shot",
        ImageSet("omniglot-runs", images),
        index[0],
        support_labels,
        index[1],
        answers.reshape(RUNS, RUN_WAY),
    )
