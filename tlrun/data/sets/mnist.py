"""MNIST (LeCun, Bottou, Bengio, Haffner, Proc. IEEE 1998): 60,000 / 10,000 grey digits, 28x28.

Read from the idx .gz files as torchvision lays them out (`MNIST/raw/*.gz`), without unpacking them
there. Mirrors and checksums are torchvision's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tlrun.config.ranges import Pixels
from tlrun.data.examples.download import Remote, cached_images, fetch, fingerprint
from tlrun.data.examples.fit import check_fit, fit_arrays
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Card, Splits
from tlrun.errors import ConfigError, DataError
from tlrun.files.archives import unpack

CLASSES = tuple("0123456789")
MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
CITATION = (
    "LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, "
    "Proc. IEEE 1998"
)
LICENCE = "CC BY-SA 3.0 (as commonly stated)"


def remote(name: str) -> Remote:
    """Where one of the four files may lie and where it comes from."""
    places = (f"MNIST/raw/{name}", f"raw/{name}")
    needs = tuple(f"MNIST/raw/{n}" for n in MD5)
    return Remote(places, MD5[name], tuple(m + name for m in MIRRORS), needs)


def read_idx(path: Path) -> np.ndarray:
    """An idx file of bytes, gzipped or not -> uint8 array. DataError for anything else."""
    try:
        data = unpack(path)
        axes = data[3]
        shape = np.frombuffer(data, ">u4", axes, 4).astype(int)
        if data[:3] != b"\x00\x00\x08":
            raise ValueError("not an idx file of bytes")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()
    except (IndexError, ValueError) as error:
        raise DataError(f"'{path}' is damaged ({error}); replace it.") from error


def images_of(split: str, size: int, fit: str, download: bool) -> tuple[torch.Tensor, Path]:
    """uint8 (N, 1, size, size) of "train" or "t10k", and the file they came from."""
    name = f"{split}-images-idx3-ubyte.gz"
    path = fetch("MNIST", remote(name), download=download)
    source = (fingerprint(path, MD5[name]), size, fit)
    return cached_images(
        f"mnist-{split}", source, lambda: fit_arrays(read_idx(path)[:, None], size, fit)
    ), path


def labels_of(split: str, download: bool) -> torch.Tensor:
    """(N,) int64, read anew each time."""
    path = fetch("MNIST", remote(f"{split}-labels-idx1-ubyte.gz"), download=download)
    return torch.from_numpy(read_idx(path).astype(np.int64))


def mnist(
    *,
    seed: int = 0,
    size: Pixels | None = 28,
    download: bool = True,
    fit: str = "squash",
    digits: str = "all",
) -> Splits:
    """MNIST's own split; val is cut off train by `build_data`.

    digits: all | even | odd: which training digits by position (halves without overlap).
    """
    check_fit(fit)
    if digits not in ("all", "even", "odd"):
        raise ConfigError(f"MNIST digits={digits}: choose all, even or odd.")
    sets, root = {}, ""
    for split in ("train", "t10k"):
        images, path = images_of(split, size or 28, fit, download)
        sets[split] = ImageSet("mnist", images, labels_of(split, download), CLASSES)
        root = str(path.parent)
    train = sets["train"]
    if digits != "all":
        train = train.subset(torch.arange(int(digits == "odd"), len(train), 2))
    card = Card("mnist", CITATION, LICENCE, "http://yann.lecun.com/exdb/mnist/", root)
    if digits != "all":
        card.notes.append(f"training digits at {digits} positions only")
    return Splits(train, None, sets["t10k"], card, fit)
