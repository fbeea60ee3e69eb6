"""Few-shot benchmarks by name: `data=mini_imagenet`, `tiered_imagenet`, `cifar_fs`, `cub_episodes`.

Whole classes are base, validation or novel ones, by the published lists. A set is read in each of
the layouts in which people have it: images with lists, a folder per class, or pickles, of which
nothing but arrays, texts and numbers is read (`load_pickle`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image

from tlrun.config.ranges import Interpolation, NotNegative, Pixels, Range
from tlrun.data.examples.csv_table import read_csv_table
from tlrun.data.examples.download import cached_images, data_roots, missing
from tlrun.data.examples.image_files import text_of
from tlrun.data.examples.splits import Card
from tlrun.data.problems.episodes import ClassSplits, rotated
from tlrun.data.sets import torchvision_sets
from tlrun.data.sets.class_images import image_sets
from tlrun.data.sets.folder import Reader, add_note
from tlrun.data.sets.listed_sets import SETS as LISTED
from tlrun.data.sets.listed_sets import class_folders, cub_classes, named, table
from tlrun.data.sets.published import Items
from tlrun.errors import ConfigError, DataError, did_you_mean
from tlrun.files.archives import described, load_npz, load_pickle

KEY = "data.classes"
SPLITS = ("train", "val", "test")  # base, validation and novel classes


@dataclass(frozen=True)
class Layout:
    """One way in which people have a set: what lies in its folder, and how that is read."""

    needs: tuple[str, ...]
    read: Callable[[Path], dict[str, Items]]


@dataclass(frozen=True)
class FewShotSet:
    """A row. classes, counts: published, of base, validation and novel classes; None where a split
    has none. places: names of its folder below a data root. cifar: made of CIFAR-100, which
    torchvision can download."""

    title: str
    citation: str
    licence: str
    url: str
    classes: tuple[int, int, int]
    counts: tuple[int, int, int] | None
    places: tuple[str, ...]
    layouts: tuple[Layout, ...]
    cifar: bool = False


def few_shot_images(
    *,
    set: str,  # the key that users type
    seed: int = 0,
    size: Pixels = 84,
    download: bool = True,
    root: str | None = None,
    channels: Literal[1, 3] = 3,
    fit: str = "crop",
    interpolation: Interpolation = "auto",
    rotations: Annotated[int, Range(1, 4)] = 1,
    memory_gb: NotNegative = 2.0,
) -> ClassSplits:
    """set: a row of the table. root: its folder, or one that holds it; None looks into the data
    folders. Independent of `seed`. Raises ConfigError, or DataError that says what to put where.
    """
    row = SETS.get(set)
    if row is None:
        raise ConfigError(f"{KEY}.set={set}: {did_you_mean(set, SETS)}")
    reader = Reader(KEY, size, channels, fit, None, memory_gb, interpolation)
    folder, layout = _locate(row, root, download)
    items = layout.read(folder)
    card = Card(set, row.citation, row.licence, row.url, str(folder))
    for note in _count_notes(row, items):
        add_note(card, KEY, note)
    _refuse_shared_classes(items, folder)
    sets, grey, _ = image_sets(set, items, card, reader)
    base, val, novel = (rotated(sets[split], rotations) for split in SPLITS)
    return ClassSplits(base, val, novel, card, fit, grey=grey)


def _locate(row: FewShotSet, root: str | None, download: bool) -> tuple[Path, Layout]:
    roots = [Path(root).expanduser()] if root else data_roots()
    candidates = [*(roots if root else []), *(at / name for at in roots for name in row.places)]
    for folder in candidates:
        for layout in row.layouts:
            if all((folder / need).exists() for need in layout.needs):
                return folder, layout
    needs = " or ".join(f"{{{', '.join(layout.needs)}}}" for layout in row.layouts)
    if root:
        raise DataError(
            f"{KEY}.root={root} does not hold {row.title}: {needs} should lie there ({row.url})."
        )
    tried = []
    if download and row.cifar:
        cifar = torchvision_sets.SETS["cifar100"]
        try:
            return torchvision_sets.download(cifar), row.layouts[0]
        except (OSError, ValueError) as error:
            tried.append(f"{cifar.probe} ({getattr(error, 'reason', None) or error})")
    note = f" (they come from {row.url})"
    raise missing(row.title, row.places, tried, needs=[f"{row.places[0]}/{needs}"], note=note)


def _count_notes(row: FewShotSet, items: Mapping[str, Items]) -> list[str]:
    """A line per split whose classes or images are not as many as published."""
    notes = []
    for k, split in enumerate(SPLITS):
        counts = [("classes", len(items[split].classes), row.classes[k])]
        if row.counts is not None:
            counts.append(("images", len(items[split]), row.counts[k]))
        notes += [
            f"{read:,} {split} {what}, not the published {published:,}"
            for what, read, published in counts
            if read != published
        ]
    return notes


def _refuse_shared_classes(items: Mapping[str, Items], folder: Path) -> None:
    names = [name for split in SPLITS for name in items[split].classes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(
            f"class '{twice}' is in two of train, val and test of '{text_of(folder)}': episodes "
            "need new classes in each; give it one place."
        )


# ---- layouts ----------------------------------------------------------------------------------


def _csv(folder: Path) -> dict[str, Items]:
    """Ravi and Larochelle's lists: a line `filename,label` for every file of images/."""
    out = {}
    for split in SPLITS:
        with described(folder / f"{split}.csv"):
            columns = read_csv_table(folder / f"{split}.csv")
            files = [folder / "images" / name for name in columns.column(0)]
            out[split] = named(files, columns.column(1))
    return out


def _folders(names: Sequence[str], folder: Path) -> dict[str, Items]:
    return {s: class_folders(folder / n) for s, n in zip(SPLITS, names, strict=True)}


def _named_classes(lists: str, images: str, folder: Path) -> dict[str, Items]:
    """A list of class names per split beside a folder per class."""
    every = class_folders(folder / images)
    files = [Path(file) for file in every.images]
    out = {}
    for split in SPLITS:
        classes = [name for (name,) in table(folder / lists.format(split))]
        if absent := [name for name in classes if name not in every.classes]:
            raise DataError(f"'{folder / images}' has no folder of the class '{absent[0]}'.")
        wanted = {every.classes.index(name) for name in classes}
        chosen = [i for i, label in enumerate(every.labels) if label in wanted]
        labels = [every.classes[every.labels[i]] for i in chosen]
        out[split] = named([files[i] for i in chosen], labels, classes)
    return out


def _numbered(images: np.ndarray, labels: Sequence[Any], names: Mapping[Any, str]) -> Items:
    """images: uint8 (N, H, W, 3). names: of the numbers that `labels` hold."""
    return named_array(images, [names.get(y, str(y)) for y in labels])


def named_array(images: np.ndarray, labels: Sequence[str]) -> Items:
    """uint8 (N, H, W, 3) with the name of a class each. Raises ValueError for another shape."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images of {images.dtype} {images.shape}, not uint8 (N, H, W, 3)")
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels")
    items = named([], labels)
    return Items(images.transpose(0, 3, 1, 2), items.labels, items.classes)


def _class_dict(files: Sequence[str], folder: Path) -> dict[str, Items]:
    """Pickles of {"image_data": (N, 84, 84, 3), "class_dict": {name: rows}}."""
    out = {}
    for split, name in zip(SPLITS, files, strict=True):
        with described(folder / name):
            content = load_pickle(folder / name)
            images = content["image_data"]
            labels = [""] * len(images)
            for label, rows in content["class_dict"].items():
                for row in rows:
                    labels[int(row)] = _text(label)
            out[split] = named_array(images, labels)
    return out


def _data_labels(files: Sequence[str], folder: Path) -> dict[str, Items]:
    """Pickles of {"data": (N, H, W, 3), "labels": numbers, "catname2label": {name: number}}."""
    out = {}
    for split, name in zip(SPLITS, files, strict=True):
        with described(folder / name):
            content = {_text(key): value for key, value in load_pickle(folder / name).items()}
            names = {y: _text(c) for c, y in content.get("catname2label", {}).items()}
            labels = [int(y) for y in content["labels"]]
            out[split] = _numbered(np.asarray(content["data"]), labels, names)
    return out


def _text(name: Any) -> str:
    return name.decode("latin1") if isinstance(name, bytes) else str(name)


def _tiered(end: str, folder: Path) -> dict[str, Items]:
    """Ren et al.'s <split>_images.npz, or PNGs in <split>_images_png.pkl; <split>_labels.pkl."""
    out = {}
    for split in SPLITS:
        path = folder / f"{split}_images{end}"
        with described(path):
            stat = path.stat()
            recipe = (path.name, stat.st_size, stat.st_mtime_ns)
            build = partial(_unpacked_images, path)
            images = cached_images(f"tiered-{split}", recipe, build).numpy()
            labels = load_pickle(folder / f"{split}_labels.pkl")
            if "label_specific_str" in labels:
                names = dict(enumerate(map(_text, labels["label_specific_str"])))
            else:
                names = {}
            out[split] = _numbered(images, [int(y) for y in labels["label_specific"]], names)
    shared = [set(items.classes) for items in out.values()]
    if shared[0] & shared[1]:  # numbers of their own in each file
        for split, items in out.items():
            items.classes = [f"{split}_{name}" for name in items.classes]
    return out


def _unpacked_images(path: Path) -> np.ndarray:
    if path.suffix == ".npz":
        return load_npz(path)["images"]
    pictures = []
    for packed in load_pickle(path):
        with Image.open(io.BytesIO(np.asarray(packed).tobytes()), formats=("PNG",)) as image:
            pictures.append(np.asarray(image.convert("RGB")))
    return np.stack(pictures)


def _cifar_fs(folder: Path) -> dict[str, Items]:
    """CIFAR-100 by torchvision: training and test images of Bertinetto et al.'s classes."""
    read = torchvision_sets.SETS["cifar100"].read
    train, test = (read(folder, split, {}) for split in ("train", "test"))
    pixels = np.concatenate([np.asarray(train.images), np.asarray(test.images)])
    labels = np.array([*train.labels, *test.labels])
    out = {}
    for split in SPLITS:
        numbers = [y for y, name in enumerate(train.classes) if _cifar_split(name) == split]
        rows = np.isin(labels, numbers)
        place = {y: i for i, y in enumerate(numbers)}
        out[split] = Items(
            pixels[rows], [place[int(y)] for y in labels[rows]], [train.classes[y] for y in numbers]
        )
    return out


def _cifar_split(name: str) -> str:
    if name in CIFAR_FS["val"]:
        return "val"
    return "test" if name in CIFAR_FS["test"] else "train"


def _cub(folder: Path) -> dict[str, Items]:
    """Chen et al.'s rule: every second class is a base class, the others are validation and novel
    ones in turn."""
    classes = cub_classes(folder)
    both = [LISTED["cub"].read(folder, split, {}) for split in ("train", "test")]
    pairs = [(f, y) for items in both for f, y in zip(items.images, items.labels, strict=True)]
    out = {}
    for split, wanted in (("train", (0, 2)), ("val", (1,)), ("test", (3,))):
        chosen = [(Path(f), classes[y]) for f, y in pairs if y % 4 in wanted]
        out[split] = named([f for f, _ in chosen], [name for _, name in chosen])
    return out


# Bertinetto et al., ICLR 2019: all other classes of CIFAR-100 are base classes
CIFAR_FS = {
    "val": "beaver otter flatfish shark lamp television beetle butterfly sea camel cattle crab "
    "crocodile maple_tree motorcycle tractor".split(),
    "test": "whale poppy rose sweet_pepper telephone bed table wardrobe leopard plain chimpanzee "
    "fox snail worm baby man woman bicycle pickup_truck rocket".split(),
}


def _split_files(pattern: str, *names: str) -> tuple[str, ...]:
    return tuple(pattern.format(name) for name in names)


def _layout(
    read: Callable[[Sequence[str], Path], dict[str, Items]], files: tuple[str, ...]
) -> Layout:
    return Layout(files, partial(read, files))


CACHE = "mini-imagenet-cache-{}.pkl"
PHASES = "miniImageNet_category_split_{}.pickle"

SETS = {
    "mini_imagenet": FewShotSet(
        title="mini-ImageNet",
        citation="Vinyals et al., NeurIPS 2016; split of Ravi and Larochelle, ICLR 2017",
        licence="images of ImageNet: non-commercial research and education",
        url="https://github.com/twitter-research/meta-learning-lstm",
        classes=(64, 16, 20),
        counts=(38400, 9600, 12000),
        places=("mini_imagenet", "mini-imagenet", "miniImageNet", "miniimagenet", "MiniImagenet"),
        layouts=(
            Layout(("images", "train.csv", "val.csv", "test.csv"), _csv),
            _layout(_folders, ("train", "val", "test")),
            _layout(_class_dict, _split_files(CACHE, "train", "val", "test")),
            _layout(_class_dict, _split_files(CACHE, "train", "validation", "test")),
            _layout(_data_labels, _split_files(PHASES, "train_phase_train", "val", "test")),
        ),
    ),
    "tiered_imagenet": FewShotSet(
        title="tiered-ImageNet",
        citation="Ren et al., Meta-learning for semi-supervised few-shot classification, ICLR 2018",
        licence="images of ImageNet: non-commercial research and education",
        url="https://github.com/renmengye/few-shot-ssl-public",
        classes=(351, 97, 160),
        counts=(448695, 124261, 206209),
        places=("tiered_imagenet", "tiered-imagenet", "tieredImageNet", "tiered-imagenet/data"),
        layouts=(
            _layout(_folders, ("train", "val", "test")),
            Layout(
                tuple(f"{s}_{end}" for s in SPLITS for end in ("images.npz", "labels.pkl")),
                partial(_tiered, ".npz"),
            ),
            Layout(
                tuple(f"{s}_{end}" for s in SPLITS for end in ("images_png.pkl", "labels.pkl")),
                partial(_tiered, "_png.pkl"),
            ),
        ),
    ),
    "cifar_fs": FewShotSet(
        title="CIFAR-FS",
        citation="Bertinetto, Henriques, Torr, Vedaldi, Meta-learning with differentiable "
        "closed-form solvers, ICLR 2019",
        licence="none stated; research use",
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        classes=(64, 16, 20),
        counts=(38400, 9600, 12000),
        places=(
            *torchvision_sets.SETS["cifar100"].places,
            *("cifar_fs", "cifarfs", "CIFAR-FS", "cifar-fs", "CIFAR_FS"),
            *("cifarfs/cifar100", "cifar-fs/cifar100"),
        ),
        layouts=(
            Layout(torchvision_sets.SETS["cifar100"].needs, _cifar_fs),
            _layout(_folders, ("processed/train", "processed/val", "processed/test")),
            Layout(
                ("data", *(f"splits/bertinetto/{s}.txt" for s in SPLITS)),
                partial(_named_classes, "splits/bertinetto/{}.txt", "data"),
            ),
            _layout(_data_labels, _split_files("CIFAR_FS_{}.pickle", *SPLITS)),
        ),
        cifar=True,
    ),
    "cub_episodes": FewShotSet(
        title="CUB-200-2011",
        citation="Wah et al. 2011; split of Chen et al., A closer look at few-shot classification, "
        "ICLR 2019, after Hilliard et al. 2018",
        licence=LISTED["cub"].licence,
        url=LISTED["cub"].url,
        classes=(100, 50, 50),
        counts=None,
        places=LISTED["cub"].places,
        layouts=(Layout(LISTED["cub"].needs, _cub),),
    ),
}
