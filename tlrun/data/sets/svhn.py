"""SVHN, cropped digits (Netzer et al., NIPS workshop 2011): 73,257 / 26,032 RGB of 32x32.

The .mat files and checksums are torchvision's; the files' label 10 is the digit 0.
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
from tlrun.errors import DataError
from tlrun.files.archives import load_mat

CLASSES = tuple("0123456789")
MIRROR = "http://ufldl.stanford.edu/housenumbers/"
MD5 = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
}
CITATION = "Netzer et al., Reading digits in natural images, NIPS workshop on deep learning 2011"


def read_mat(path: Path, variable: str) -> np.ndarray:
    """One variable of a MATLAB file; DataError if it is damaged or lacks it."""
    arrays = load_mat(path, [variable])
    if variable not in arrays:
        raise DataError(f"'{path}' has no variable {variable}; replace it.")
    array: np.ndarray = arrays[variable]
    return array


def svhn(
    *,
    seed: int = 0,
    size: Pixels | None = 32,
    download: bool = True,
    fit: str = "squash",
    extra: bool = False,
) -> Splits:
    """SVHN's own split; val is cut off train. extra: train on the 531,131 easy images too."""
    check_fit(fit)
    files = ["train_32x32.mat", "test_32x32.mat", *(["extra_32x32.mat"] if extra else [])]
    needs = tuple(f"SVHN/{name}" for name in files)
    sets, root = {}, ""
    for name in files:
        remote = Remote((f"SVHN/{name}", name), MD5[name], (MIRROR + name,), needs)
        path = fetch("SVHN", remote, download=download)
        source = (fingerprint(path, MD5[name]), size, fit)

        def make(path: Path = path) -> np.ndarray:
            return fit_arrays(read_mat(path, "X").transpose(3, 2, 0, 1), size or 32, fit)

        images = cached_images(f"svhn-{path.stem}", source, make)
        labels = torch.from_numpy(read_mat(path, "y").astype(np.int64).ravel() % 10)
        sets[name] = ImageSet("svhn", images, labels, CLASSES)
        root = str(path.parent)
    train = sets["train_32x32.mat"]
    if extra:
        more = sets["extra_32x32.mat"]
        assert train.labels is not None
        assert more.labels is not None
        images = torch.cat([train.data, more.data])
        labels = torch.cat([train.labels, more.labels])
        train = ImageSet("svhn", images, labels, CLASSES)
    card = Card("svhn", CITATION, "non-commercial use only", MIRROR, root)
    return Splits(train, None, sets["test_32x32.mat"], card, fit)
