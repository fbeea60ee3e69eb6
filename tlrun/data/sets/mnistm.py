"""MNIST-M (Ganin and Lempitsky, ICML 2015; Ganin et al., JMLR 2016): MNIST blended with BSDS500
crops.

`mnistm`: Ganin's own images, 59,001 / 9,001 RGB of 32x32: a digit of 28x28 padded by 2, so they are
cut to [2:30, 2:30], never resized. Image i *is* MNIST digit i. Sources, in this order:

    MNIST-M/mnist_m_train*.zip, mnist_m_test*.zip   with mnist_m_{train,test}_labels.txt beside
                                                    them (lines "name.png label")
    mnist_m_{train,test}/                           folders of PNGs with the same lists (Ganin's
                                                    mnist_m.tar.gz, unpacked)
    mnist_m_{train,test}.pt.tar.gz                  of github.com/liyxi/mnist-m (the download)

A zip may hold only a part of the training images; the card says how many there are.
`mnistm_generated`: made here from MNIST and BSDS500 by the paper's formula, see there.
"""

from __future__ import annotations

import io
import re
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tlrun.config.ranges import Pixels
from tlrun.data.examples.download import (
    Remote,
    cached_images,
    fetch,
    file_md5,
    find,
    fingerprint,
    missing,
)
from tlrun.data.examples.fit import check_fit, fit_arrays
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Card, Splits
from tlrun.data.pipeline.hashing import integers, permutation
from tlrun.data.sets import mnist
from tlrun.errors import DataError
from tlrun.files.archives import load_tensors, open_tar, open_zip

CLASSES = tuple("0123456789")
FULL = {"train": 59_001, "test": 9_001}
RELEASE = "https://github.com/liyxi/mnist-m/releases/download/data/"
MD5 = {"train": "191ed53db9933bd85cc9700558847391", "test": "e11cb4d7fff76d7ec588b1134907db59"}
NEEDS = (
    "MNIST-M/mnist_m_train.pt.tar.gz and mnist_m_test.pt.tar.gz "
    "(or mnist_m_train*.zip and mnist_m_test*.zip of PNGs with their mnist_m_*_labels.txt)",
)
CITATION = "Ganin et al., Domain-adversarial training of neural networks, JMLR 2016"
LICENCE = "none stated; derived from MNIST and BSDS500 (non-commercial research)"

BSDS = "BSDS500/BSR_bsds500_images.tar"
BSDS_PLACES = (BSDS, "BSDS500/BSR_bsds500.tgz", "BSR_bsds500.tgz")
GENERATED = {  # ImageSet.checksum of `mnistm_generated` at 28x28
    "train": "6772d08f2c09b71c4f22a3d7c3b9da30de1f79e7f72f9fae6c951cd7380d7cfe",
    "test": "c9b02ef9314faf5b3dd7aa1d6a82d8b6a7d22efe2747964114d28465dbfb8fce",
}


def mnistm(
    *, seed: int = 0, size: Pixels | None = 28, download: bool = True, fit: str = "center"
) -> Splits:
    """Ganin's images and split; val is cut off train by `build_data`."""
    check_fit(fit)
    sets, notes, root = {}, [], ""
    for split in ("train", "test"):
        images, labels, names, path = _load(split, size or 28, fit, download)
        sets[split] = ImageSet("mnistm", images, labels, CLASSES, names)
        root = str(path.parent)
        if len(images) < FULL[split]:
            notes.append(
                f"{len(images):,} of Ganin's {FULL[split]:,} {split} images are on this machine"
            )
    card = Card("mnistm", CITATION, LICENCE, "http://yaroslav.ganin.net", root, notes)
    return Splits(sets["train"], None, sets["test"], card, fit)


def _load(
    split: str, size: int, fit: str, download: bool
) -> tuple[Tensor, Tensor, list[str] | None, Path]:
    """(images, labels, file names, where from) from the first source that is here."""
    archive = find(f"MNIST-M/mnist_m_{split}*.zip", f"mnist_m_{split}*.zip")
    folder = find(f"MNIST-M/mnist_m_{split}", f"mnist_m/mnist_m_{split}", f"mnist_m_{split}")
    path = archive or folder
    if path is None:
        return _load_release(split, size, fit, download)
    names = _png_names(path)
    labels = _label_list(split, path, names)
    source = (
        file_md5(path) if path.is_file() else (str(path), names[-1], path.stat().st_mtime_ns),
        size,
        fit,
    )
    images = cached_images(
        f"mnistm-{split}", source, lambda: fit_arrays(_decode(path, names), size, fit)
    )
    return images, labels, [f"mnist_m_{split}/{Path(name).name}" for name in names], path


def _png_names(path: Path) -> list[str]:
    """Names of the PNGs of a zip or a folder, in order of their numbers."""
    if path.is_file():
        with open_zip(path) as archive:
            found = archive.namelist()
    else:
        found = [p.name for p in path.iterdir()]
    names = sorted((n for n in found if n.endswith(".png")), key=lambda n: Path(n).name)
    if not names:
        raise DataError(f"'{path}' holds no PNG; it should hold Ganin's mnist_m images.")
    return names


def _decode(path: Path, names: list[str]) -> np.ndarray:
    """uint8 (N, 3, 32, 32) of the PNGs `names` in a zip or a folder."""
    out = np.empty((len(names), 3, 32, 32), np.uint8)
    with open_zip(path) if path.is_file() else nullcontext() as archive:
        for i, name in enumerate(names):
            try:
                data = archive.read(name) if archive else (path / name).read_bytes()
                out[i] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)
            except Exception as error:  # zlib and PIL raise a dozen kinds
                raise DataError(
                    f"cannot read '{name}' of '{path}' ({error}); replace the archive."
                ) from error
    return out


def _label_list(split: str, path: Path, names: list[str]) -> Tensor:
    listed = f"mnist_m_{split}_labels.txt"
    place = path.parent / listed
    if not place.exists():
        raise DataError(
            f"MNIST-M: no label list '{place}' beside '{path.name}'; put {listed} there."
        )
    table = dict(re.findall(r"^(\S+\.png)\s+(\d+)\s*$", place.read_text(), re.MULTILINE))
    try:
        return torch.tensor([int(table[Path(name).name]) for name in names])
    except KeyError as error:
        raise DataError(
            f"'{place}' has no label for {error}; replace it by the published list."
        ) from error


def _load_release(
    split: str, size: int, fit: str, download: bool
) -> tuple[Tensor, Tensor, None, Path]:
    """The .pt inside the release's tar: read by name, and by torch.load(weights_only=True)."""
    name = f"mnist_m_{split}.pt"
    places = (f"MNIST-M/{name}.tar.gz", f"{name}.tar.gz")
    remote = Remote(places, MD5[split], (f"{RELEASE}{name}.tar.gz",), NEEDS)
    path = fetch("MNIST-M", remote, download=download)
    md5 = fingerprint(path, MD5[split])
    content = cache(partial(read_release, path, name))  # opened only if the cache lacks something
    images = cached_images(
        f"mnistm-{split}", (md5, size, fit), lambda: fit_arrays(content()[0], size, fit)
    )
    labels = cached_images(f"mnistm-{split}-labels", md5, lambda: content()[1].numpy())
    return images, labels, None, path


def read_release(path: Path, name: str) -> tuple[np.ndarray, Tensor]:
    """A .pt.tar.gz -> images uint8 (N, 3, S, S), labels int64 (N,). No pickle is run."""
    with open_tar(path) as (tar, members):
        member = next((m for m in members if Path(m.name).name == name), None)
        stream = tar.extractfile(member) if member else None
        if stream is None:
            raise DataError(f"'{path}' does not hold {name}; replace it.")
        images, labels = load_tensors(stream.read())
        images, labels = torch.as_tensor(images), torch.as_tensor(labels).long()
    if images.ndim != 4 or images.dtype != torch.uint8 or len(images) != len(labels):
        raise DataError(
            f"'{path}' holds {tuple(images.shape)} {images.dtype}, not uint8 images with labels."
        )
    if images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2)
    return images.contiguous().numpy(), labels


def mnistm_generated(*, seed: int = 0, size: Pixels | None = 28, download: bool = True) -> Splits:
    """MNIST-M made here: |digit - crop| per channel (the paper's formula), the same bytes
    everywhere.

    train: the 30,000 MNIST training digits at odd positions (the source takes the even ones), in
    another order, on 28x28 crops of the 200 training photographs of BSDS500 at full resolution.
    test: the 10,000 test digits, in another order, on crops of the 200 test photographs.
    Nothing depends on the seed of a run.
    """
    tar = find(*BSDS_PLACES)
    if tar is None:
        note = "; from eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html"
        raise missing("BSDS500", BSDS_PLACES, note=note)
    sets = {}
    for split, name in (("train", "train"), ("test", "t10k")):
        digits, digit_file = mnist.images_of(name, 28, "squash", download)
        order = permutation(len(digits), "mnistm_generated", split)
        if split == "train":
            order = order[order % 2 == 1]
        source = ("mnistm_generated", file_md5(digit_file), tar.stat().st_size, size)

        def make(split: str = split, digits: Tensor = digits, order: Tensor = order) -> np.ndarray:
            return fit_arrays(_blend(digits[order].numpy(), tar, split), size or 28, "squash")

        images = cached_images(f"mnistm-generated-{split}", source, make)
        sets[split] = ImageSet(
            "mnistm_generated", images, mnist.labels_of(name, download)[order], CLASSES
        )
    citation = f"{CITATION} (formula); MNIST; Arbelaez et al., IEEE TPAMI 2011 (BSDS500)"
    card = Card("mnistm_generated", citation, LICENCE, "", str(tar.parent))
    return Splits(sets["train"], None, sets["test"], card, "center")


def _blend(digits: np.ndarray, tar: Path, split: str) -> np.ndarray:
    """uint8 (n, 1, 28, 28) -> uint8 (n, 3, 28, 28) on crops of the photographs of `split`."""
    photos = bsds_photos(tar, split)
    n, side = len(digits), digits.shape[-1]
    which = integers(n, len(photos), "mnistm_generated", split, "photo").tolist()
    place = torch.stack(
        [integers(n, 1 << 20, "mnistm_generated", split, axis) for axis in ("top", "left")], 1
    ).tolist()
    out = np.empty((n, 3, side, side), np.uint8)
    for i, (w, (top, left)) in enumerate(zip(which, place, strict=True)):
        photo = photos[w]
        y, x = top % (photo.shape[0] - side + 1), left % (photo.shape[1] - side + 1)
        crop = photo[y : y + side, x : x + side].transpose(2, 0, 1).astype(np.int16)
        out[i] = np.abs(crop - digits[i])
    return out


def bsds_photos(tar: Path, split: str) -> list[np.ndarray]:
    """The photographs of a split of BSDS500, by name: uint8 (H, W, 3), read inside the archive."""
    pattern = re.compile(rf"images/{split}/[^/]+\.jpg$")
    with open_tar(tar) as (archive, members):
        members = sorted((m for m in members if pattern.search(m.name)), key=lambda m: m.name)
        streams = [archive.extractfile(m) for m in members]
        photos = [np.asarray(Image.open(s).convert("RGB")) for s in streams if s is not None]
    if not photos:
        raise DataError(f"'{tar}' holds no BSDS500 images/{split}/*.jpg; replace it.")
    return photos
