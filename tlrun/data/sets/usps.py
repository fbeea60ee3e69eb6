"""USPS (Hull, IEEE TPAMI 1994), the LIBSVM version: 7,291 / 2,007 grey digits, 16x16.

The .bz2 text files (`label index:value ...`, labels 1..10 = digits 0..9, values -1..1) as
torchvision reads them: uint8((v + 1) / 2 * 255). fit=shrink (the default) resizes to 20x20 and pads
by 4, MNIST's own geometry; fit=squash is the plain resize to 28x28 of older papers.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from tlrun.config.ranges import Pixels
from tlrun.data.examples.download import Remote, cached_images, fetch, fingerprint
from tlrun.data.examples.fit import check_fit, fit_arrays
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Card, Splits
from tlrun.errors import DataError
from tlrun.files.archives import unpack

CLASSES = tuple("0123456789")
MIRROR = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/"
MD5 = {
    "usps.bz2": "ec16c51db3855ca6c91edd34d0e9b197",
    "usps.t.bz2": "8ea070ee2aca1ac39742fdd1ef5ed118",
}
CITATION = "Hull, A database for handwritten text recognition research, IEEE TPAMI 1994"


def read_libsvm(path: Path) -> np.ndarray:
    """Dense libsvm text -> float32 (N, 257): label, then 256 values; else DataError."""
    try:
        text = unpack(path).decode("ascii")
        rows = [
            [token.rpartition(":")[2] for token in line.split()]
            for line in text.splitlines()
            if line
        ]
        table = np.array(rows, dtype=np.float32)
        if table.ndim != 2 or table.shape[1] != 257:
            raise ValueError(f"shape {table.shape} instead of (N, 257)")
        return table
    except ValueError as error:
        raise DataError(f"'{path}' is damaged ({error}); replace it.") from error


def usps(
    *, seed: int = 0, size: Pixels | None = 28, download: bool = True, fit: str = "shrink"
) -> Splits:
    """USPS's own split; val is cut off train by `build_data`."""
    check_fit(fit)
    needs = tuple(f"USPS/{name}" for name in MD5)
    sets, root, notes = {}, "", []
    for split, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        remote = Remote((f"USPS/{name}", name), MD5[name], (MIRROR + name,), needs)
        path = fetch("USPS", remote, download=download)
        md5 = fingerprint(path)
        # parsing takes seconds, so the table is cached whole, as bytes: label, 256 pixels
        table = cached_images(f"usps-{split}-table", md5, partial(_table, path))
        pixels = table[:, 1:].reshape(-1, 1, 16, 16)
        images = torch.from_numpy(fit_arrays(pixels.numpy(), size or 28, fit))
        sets[split] = ImageSet("usps", images, table[:, 0].long(), CLASSES)
        root = str(path.parent)
        if md5 != MD5[name]:
            notes.append(f"{name} is not the published file (md5 {md5})")
    card = Card("usps", CITATION, "none stated; research use", MIRROR, root, notes)
    return Splits(sets["train"], None, sets["test"], card, fit)


def _table(path: Path) -> np.ndarray:
    """uint8 (N, 257): label 0..9, then the pixels 0..255."""
    table = read_libsvm(path)
    table[:, 0] -= 1
    table[:, 1:] = (table[:, 1:] + 1) / 2 * 255
    return table.astype(np.uint8)
