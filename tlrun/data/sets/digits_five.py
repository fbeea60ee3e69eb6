"""Digits-Five (Peng et al., ICCV 2019): mnist, mnist_m, svhn, syn, usps as domains, 32x32.

Of each domain 25,000 training and 9,000 test images are drawn, as in the paper; USPS has fewer and
is used whole. The draw is fixed: it does not depend on the seed of a run. A domain is read from the
authors' archive, unpacked:

    Digit-Five/{mnist_data,mnistm_with_label,syn_number,usps_28x28}.mat
    Digit-Five/{svhn_train_32x32,svhn_test_32x32}.mat

and, where such a file is not there, from the set of that name (`mnist`, `mnistm`, `svhn`, `usps`),
whose splits differ a little: 60,000 instead of 55,000 training images of MNIST, 7,291 / 2,007
instead of 7,438 / 1,860 of USPS. The synthetic digits are in the archive alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tlrun.config.ranges import Count, Pixels
from tlrun.data.examples.download import cached_images, find, fingerprint, missing
from tlrun.data.examples.fit import check_fit, fit_arrays
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.pixels import JoinedPixels
from tlrun.data.examples.splits import Card, Splits
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.sets.mnist import mnist
from tlrun.data.sets.mnistm import mnistm
from tlrun.data.sets.svhn import svhn
from tlrun.data.sets.usps import usps
from tlrun.errors import ConfigError, DataError, did_you_mean
from tlrun.files.archives import load_mat

CLASSES = tuple("0123456789")
CITATION = (
    "Peng, Bai, Xia, Huang, Saenko, Wang, Moment matching for multi-source domain adaptation, "
    "ICCV 2019"
)
LICENCE = "those of its parts (MNIST, MNIST-M, SVHN, synthetic digits, USPS); research use"
URL = (
    "https://github.com/VisionLearningGroup/VisionLearningGroup.github.io/tree/master/M3SDA/"
    "code_MSDA_digit"
)
FOLDERS = ("Digit-Five", "digits_five", "DigitFive", "digit5/Digit-Five", "digit-five")
FILES = {
    "mnist": ("mnist_data.mat",),
    "mnist_m": ("mnistm_with_label.mat",),
    "svhn": ("svhn_train_32x32.mat", "svhn_test_32x32.mat"),
    "syn": ("syn_number.mat",),
    "usps": ("usps_28x28.mat",),
}
OWN_SETS: dict[str, Callable[..., Splits]] = {
    "mnist": mnist,
    "mnist_m": mnistm,
    "svhn": svhn,
    "usps": usps,
}

Arrays = Mapping[str, Any]
Images = tuple[np.ndarray, np.ndarray]  # uint8 (N, C, H, W), labels (N,)


def digits_five(
    *,
    seed: int = 0,
    size: Pixels | None = 32,
    download: bool = True,
    set: str = "digits_five",  # the key that users type
    domains: Sequence[str] = (),
    root: str | None = None,
    channels: Literal[1, 3] = 3,
    fit: str = "squash",
    max_train: Count | None = 25_000,
    max_test: Count | None = 9_000,
) -> Splits:
    """See the module. domains: joined if several. root: the folder of the authors' files.

    max_train, max_test: images that are drawn of a domain; None = all. val is cut off train by
    `build_data`. Raises ConfigError or DataError.
    """
    check_fit(fit)
    read = []
    for domain in domains:
        if domain not in FILES:
            raise ConfigError(f"digits_five has no '{domain}': {did_you_mean(domain, FILES)}")
        splits = _splits(domain, root, size or 32, fit, download)
        read.append(
            replace(
                splits,
                train=_drawn(splits.train, max_train, domain, "train"),
                test=_drawn(splits.test, max_test, domain, "test"),
            )
        )
    return read[0] if len(read) == 1 else _joined(domains, read)


def _splits(domain: str, root: str | None, size: int, fit: str, download: bool) -> Splits:
    """A domain from the authors' files, else from the set of its name."""
    places = {name: _place(name, root) for name in FILES[domain]}
    paths = [path for path in places.values() if path is not None]
    card = Card(f"digits_five {domain}", CITATION, LICENCE, URL)
    if len(paths) == len(places):
        sets = {split: _read(domain, split, paths, size, fit) for split in ("train", "test")}
        card.root = str(paths[0].parent)
        return Splits(sets["train"], None, sets["test"], card, fit)
    if domain not in OWN_SETS:
        names = [f"{FOLDERS[0]}/{name}" for name in places]
        raise missing(f"Digits-Five ({domain})", names, needs=[f"{', '.join(names)} (from {URL})"])
    own = OWN_SETS[domain](size=size, download=download)
    card.root = own.card.root
    card.notes = [f"from the set {own.card.name}", *own.card.notes]
    return replace(own, card=card)


def _place(name: str, root: str | None) -> Path | None:
    if root is None:
        return find(*(f"{folder}/{name}" for folder in FOLDERS))
    beside = [Path(root).expanduser() / folder / name for folder in (".", *FOLDERS)]
    return next((path for path in beside if path.is_file()), None)


def _read(domain: str, split: str, paths: Sequence[Path], size: int, fit: str) -> ImageSet:
    """The images from the cache, the labels read anew."""
    path = paths[-1] if split == "test" else paths[0]
    parse = PARSERS[domain]

    def arrays() -> Images:
        try:
            return parse(load_mat(path), split)
        except (KeyError, IndexError, ValueError) as error:
            raise DataError(f"'{path}' is not Digits-Five's ({error}); replace it.") from error

    images = cached_images(
        f"digits_five-{domain}-{split}",
        (fingerprint(path), split, size, fit),
        lambda: fit_arrays(arrays()[0], size, fit),
    )
    return ImageSet(domain, images, torch.from_numpy(arrays()[1].astype(np.int64)), CLASSES)


def _drawn(examples: ImageSet | None, most: int | None, domain: str, split: str) -> Any:
    """At most so many examples, the same ones for every seed."""
    if examples is None or most is None or len(examples) <= most:
        return examples
    chosen = permutation(len(examples), "digits_five", domain, split)[:most]
    return examples.subset(chosen.sort().values)


def _joined(domains: Sequence[str], read: Sequence[Splits]) -> Splits:
    """The domains one after the other, under one card."""

    def join(sets: Sequence[ImageSet | None]) -> ImageSet:
        present = [examples for examples in sets if examples is not None]
        labels = torch.cat([e.labels for e in present if e.labels is not None])
        return ImageSet("+".join(domains), JoinedPixels(present), labels, CLASSES)

    notes = [note for splits in read for note in splits.card.notes]
    card = Card(f"digits_five {'+'.join(domains)}", CITATION, LICENCE, URL, notes=notes)
    card.root = "; ".join(dict.fromkeys(splits.card.root for splits in read))
    train, test = join([s.train for s in read]), join([s.test for s in read])
    return Splits(train, None, test, card, read[0].fit)


# ---- the authors' files -----------------------------------------------------------------------


def _mnist(arrays: Arrays, split: str) -> Images:
    images = np.asarray(arrays[f"{split}_32"])
    return images.reshape(-1, 1, 32, 32), np.argmax(arrays[f"label_{split}"], 1)


def _mnist_m(arrays: Arrays, split: str) -> Images:
    return arrays[split].transpose(0, 3, 1, 2), np.argmax(arrays[f"label_{split}"], 1)


def _svhn(arrays: Arrays, split: str) -> Images:
    return arrays["X"].transpose(3, 2, 0, 1), arrays["y"].ravel() % 10


def _syn(arrays: Arrays, split: str) -> Images:
    return arrays[f"{split}_data"].transpose(0, 3, 1, 2), arrays[f"{split}_label"].ravel()


def _usps(arrays: Arrays, split: str) -> Images:
    """Cells (images from 0 to 1, labels) of the training and of the test set."""
    images, labels = arrays["dataset"][("train", "test").index(split)]
    return np.round(images * 255).astype(np.uint8), labels.ravel()


PARSERS: dict[str, Callable[[Arrays, str], Images]] = {
    "mnist": _mnist,
    "mnist_m": _mnist_m,
    "svhn": _svhn,
    "syn": _syn,
    "usps": _usps,
}
