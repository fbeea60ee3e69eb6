"""Sets that torchvision has a loader for: one adapter, a row each.

The loader reads the lists of a set and names its files; nothing is decoded by it, but that the sets
of arrays (CIFAR, STL-10) are loaded whole. It checks the MD5 of whatever it unpickles.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tlrun.data.examples.download import (
    STALL_SECONDS,
    cache_root,
    check_reachable,
    file_md5,
    locked,
)
from tlrun.data.sets.published import Items, PublishedSet
from tlrun.files.archives import described

log = logging.getLogger("tlrun")


def _loader_class(name: str) -> Any:
    from torchvision import datasets

    return getattr(datasets, name)


@contextmanager
def _as_expected(folder: Path, place: str) -> Iterator[Path]:
    """A root below which `folder` is called `place`, as torchvision wants it, by a link."""
    with tempfile.TemporaryDirectory(prefix="tlrun-") as root:
        link = Path(root) / place
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder.resolve(), target_is_directory=True)
        yield Path(root)


def read_by_loader(name: str, place: str, folder: Path, arguments: Mapping[str, Any]) -> Items:
    """What torchvision.datasets.<name> lists of `folder`. Raises DataError."""
    with _as_expected(folder, place) as root, described(folder):
        loaded = _loader_class(name)(str(root), **arguments)
        classes = [str(c) for c in loaded.classes]
        if isinstance(getattr(loaded, "data", None), np.ndarray):
            labels = loaded.targets if hasattr(loaded, "targets") else loaded.labels
            pixels = loaded.data if loaded.data.shape[1] == 3 else loaded.data.transpose(0, 3, 1, 2)
            return Items(pixels, [int(y) for y in labels], classes)
        pairs = getattr(loaded, "_samples", None) or [*zip(*_files(loaded), strict=True)]
        inside = root / place
        return Items(
            [folder / Path(file).relative_to(inside) for file, _ in pairs],
            [int(label) for _, label in pairs],
            classes,
        )


def _files(loaded: Any) -> tuple[list[Path], list[int]]:
    """The paths and labels that a loader holds, by the names that torchvision gives them."""
    files = loaded._images if hasattr(loaded, "_images") else loaded._image_files
    return files, loaded._labels


def download(row: PublishedSet) -> Path:
    """The folder of a set, downloaded and unpacked into the cache by torchvision.

    What is not complete has no name yet, so a kill leaves nothing that is read. Raises OSError
    within seconds where the server cannot be reached.
    """
    data = cache_root() / "data"
    folder = data / row.places[0]
    with locked(folder):
        if folder.is_dir():  # another process was faster
            return folder
        check_reachable(row.probe)
        log.info("downloading %s by torchvision (%s)", row.title, row.url)
        part = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=data))
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(STALL_SECONDS)  # torchvision sets none
        try:
            _loader_class(row.loader)(str(part), download=True)
            if row.md5 and (found := file_md5(part / Path(row.probe).name)) != row.md5:
                raise OSError(f"checksum {found} instead of {row.md5}")
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part / row.places[0], folder)
        except RuntimeError as error:
            raise OSError(str(error)) from error
        finally:
            socket.setdefaulttimeout(before)
            shutil.rmtree(part, ignore_errors=True)
    return folder


# ---- how each loader is asked -----------------------------------------------------------------


def _pets(folder: Path, split: str, options: Mapping[str, Any]) -> Items:
    arguments = {"split": "trainval" if split == "train" else split}
    return read_by_loader("OxfordIIITPet", "oxford-iiit-pet", folder, arguments)


def _flowers(folder: Path, split: str, options: Mapping[str, Any]) -> Items:
    return read_by_loader("Flowers102", "flowers-102", folder, {"split": split})


def _dtd(folder: Path, split: str, options: Mapping[str, Any]) -> Items:
    arguments = {"split": split, "partition": options.get("partition", 1)}
    return read_by_loader("DTD", "dtd/dtd", folder, arguments)


def _cifar10(folder: Path, split: str, options: Mapping[str, Any]) -> Items:
    return read_by_loader("CIFAR10", "cifar-10-batches-py", folder, {"train": split == "train"})


def _cifar100(folder: Path, split: str, options: Mapping[str, Any]) -> Items:
    return read_by_loader("CIFAR100", "cifar-100-python", folder, {"train": split == "train"})


def _food101(folder: Path, split: str, options: Mapping[str, Any]) -> Items:
    return read_by_loader("Food101", "food-101", folder, {"split": split})


def _aircraft(folder: Path, split: str, options: Mapping[str, Any]) -> Items:
    arguments = {"split": split, "annotation_level": options.get("level", "variant")}
    return read_by_loader("FGVCAircraft", "fgvc-aircraft-2013b/data", folder, arguments)


def _cars(folder: Path, split: str, options: Mapping[str, Any]) -> Items:
    return read_by_loader("StanfordCars", "stanford_cars", folder, {"split": split})


CIFAR = "Krizhevsky, Learning multiple layers of features from tiny images, 2009"
OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/"

SETS = {
    "pets": PublishedSet(
        title="Oxford-IIIT Pets",
        citation="Parkhi, Vedaldi, Zisserman, Jawahar, Cats and dogs, CVPR 2012",
        licence="CC BY-SA 4.0",
        url=f"{OXFORD}pets/",
        classes=37,
        counts={"train": 3680, "test": 3669},
        places=("oxford-iiit-pet", "oxford_pets", "OxfordPets", "pets"),
        needs=("images", "annotations/trainval.txt", "annotations/test.txt"),
        read=_pets,
        loader="OxfordIIITPet",
        probe=f"{OXFORD}pets/data/images.tar.gz",
    ),
    "flowers": PublishedSet(
        title="Oxford Flowers 102",
        citation="Nilsback, Zisserman, Automated flower classification over a large number of "
        "classes, ICVGIP 2008",
        licence="none stated; research use",
        url=f"{OXFORD}flowers/102/",
        classes=102,
        counts={"train": 1020, "val": 1020, "test": 6149},
        places=("flowers-102", "oxford_flowers", "flowers102", "flowers"),
        needs=("jpg", "imagelabels.mat", "setid.mat"),
        read=_flowers,
        loader="Flowers102",
        probe=f"{OXFORD}flowers/102/102flowers.tgz",
    ),
    "dtd": PublishedSet(
        title="Describable Textures (DTD)",
        citation="Cimpoi, Maji, Kokkinos, Mohamed, Vedaldi, Describing textures in the wild, "
        "CVPR 2014",
        licence="research purposes",
        url=f"{OXFORD}dtd/",
        classes=47,
        counts={"train": 1880, "val": 1880, "test": 1880},
        places=("dtd/dtd", "dtd", "DTD"),
        needs=("images", "labels"),
        read=_dtd,
        options={"partition": {}},
        loader="DTD",
        probe=f"{OXFORD}dtd/download/dtd-r1.0.1.tar.gz",
    ),
    "cifar10": PublishedSet(
        title="CIFAR-10",
        citation=CIFAR,
        licence="none stated; research use",
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        classes=10,
        counts={"train": 50000, "test": 10000},
        places=(
            "cifar-10-batches-py",
            "cifar10/cifar-10-batches-py",
            "CIFAR10/cifar-10-batches-py",
        ),
        needs=("batches.meta", *(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
        read=_cifar10,
        loader="CIFAR10",
        probe="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ),
    "cifar100": PublishedSet(
        title="CIFAR-100",
        citation=CIFAR,
        licence="none stated; research use",
        url="https://www.cs.toronto.edu/~kriz/cifar.html",
        classes=100,
        counts={"train": 50000, "test": 10000},
        places=("cifar-100-python", "cifar100/cifar-100-python", "CIFAR100/cifar-100-python"),
        needs=("meta", "train", "test"),
        read=_cifar100,
        loader="CIFAR100",
        probe="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    ),
    "food101": PublishedSet(
        title="Food-101",
        citation="Bossard, Guillaumin, Van Gool, Food-101, ECCV 2014",
        licence="scientific fair use of photographs of Foodspotting",
        url="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        classes=101,
        counts={"train": 75750, "test": 25250},
        places=("food-101", "Food-101", "food101"),
        needs=("images", "meta/train.json", "meta/test.json"),
        read=_food101,
        loader="Food101",
        probe="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
    ),
    "aircraft": PublishedSet(
        title="FGVC-Aircraft",
        citation="Maji, Rahtu, Kannala, Blaschko, Vedaldi, Fine-grained visual classification of "
        "aircraft, 2013",
        licence="non-commercial research use only",
        url=f"{OXFORD}fgvc-aircraft/",
        classes=100,
        counts={"train": 3334, "val": 3333, "test": 3333},
        places=(
            "fgvc-aircraft-2013b/data",
            *("fgvc_aircraft/data", "fgvc_aircraft", "aircraft/data", "aircraft", "data"),
        ),
        needs=("images", "variants.txt", "images_variant_train.txt"),
        read=_aircraft,
        options={"level": {}},
        loader="FGVCAircraft",
        probe=f"{OXFORD}fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
        md5="d4acdd33327262359767eeaa97a4f732",
    ),
    "stanford_cars": PublishedSet(
        title="Stanford Cars",
        citation="Krause, Stark, Deng, Fei-Fei, 3D object representations for fine-grained "
        "categorization, 3dRR 2013",
        licence="none stated; research use",
        url="https://github.com/pytorch/vision/issues/7545",
        classes=196,
        counts={"train": 8144, "test": 8041},
        places=("stanford_cars", "StanfordCars", "cars"),
        needs=(
            "cars_train",
            "cars_test",
            "devkit/cars_meta.mat",
            "devkit/cars_train_annos.mat",
            "cars_test_annos_withlabels.mat",
        ),
        read=_cars,
    ),
}
