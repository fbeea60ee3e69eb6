"""scikit-learn's handwritten digits, and "digits-M": such digits blended with photographs.

Bundled with scikit-learn: no download. The recipe was fixed before any training with it:

* `load_digits` (1,797 scans of 8x8, 0..16; UCI "optical recognition of handwritten digits", test
  part). A pixel becomes round(v * 255 / 16); the image is enlarged to 24x24 (PIL, bicubic)
  and padded by 2.
* A fixed permutation of the 1,797 digits (splitmix64, key "digits_digitsm") is cut into six parts
  without overlap: source 600 train, 98 val, 200 test; target 600 train, 98 val, 201 test.
* digits-M = |photo - digit| per channel, where photo is a 28x28 crop at full resolution of one of
  scikit-learn's two sample photographs (china.jpg, flower.jpg: 427x640 RGB) at a hashed place. A
  digit of the target's *training* set is blended with 3 crops (1,800 images); the others with one.

Nothing depends on the seed of a run. `CHECKSUMS` are recorded; a test recomputes them.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tlrun.config.ranges import Pixels
from tlrun.data.examples.fit import fit_arrays
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Card, Splits
from tlrun.data.pipeline.hashing import integers, permutation

CLASSES = tuple("0123456789")
KEY = "digits_digitsm"
SIDE = 28
PARTS = {"source": (600, 98, 200), "target": (600, 98, 201)}
CROPS = {"train": 3, "val": 1, "test": 1}
CHECKSUMS = {  # ImageSet.checksum of each part at 28x28
    "digits/train": "cbffae933f533d46c418215f4da128e2e41e666236c957de9f1378825f6fc5e4",
    "digits/val": "b184c27a517914cba1e57b60e823ad4539594563bd678d98d755f891068ee3ce",
    "digits/test": "ae0cbb1f3f9884062331b2702f37ca7ec4697d6ffba37fb4c8dfefcf67a889bb",
    "digits_m/train": "e97b17511427e6e4fd6275aeb860c76edf13fd1995fd7487ff900f68690b6acf",
    "digits_m/val": "1d2fc5ce1ef41070067be9c9c910b273fc1e5e98ed338a881b174e59800cbe62",
    "digits_m/test": "f5b4424c0f145ae11e265772e519004f4d8ada20a68f0a061f9eb3fb6d925615",
}

CITATION = (
    "Alpaydin and Kaynak, UCI Optical Recognition of Handwritten Digits, 1998; "
    "scikit-learn sample images"
)
LICENCE = "CC BY 4.0 (digits, UCI); CC BY 2.0 (photographs)"
URL = "https://archive.ics.uci.edu/dataset/80"


def enlarged() -> tuple[np.ndarray, np.ndarray]:
    """All digits in their own order: uint8 (1797, 1, 28, 28) and labels (1797,) int64."""
    images, labels = _enlarged()
    return images.copy(), labels.copy()


@functools.cache  # source, target, and both again for the baseline: all start from the same 1.4 MB
def _enlarged() -> tuple[np.ndarray, np.ndarray]:
    scans, labels = _scans()
    small = np.rint(scans * (255 / 16)).astype(np.uint8)
    images = np.zeros((len(small), 1, SIDE, SIDE), np.uint8)
    for i, digit in enumerate(small):
        images[i, 0, 2:26, 2:26] = np.asarray(
            Image.fromarray(digit).resize((24, 24), Image.Resampling.BICUBIC)
        )
    return images, labels.astype(np.int64)


# The files are read where scikit-learn keeps them: to import it takes a second, and they 50 ms.
# A version that keeps them elsewhere is asked for them.


def _scans() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 8, 8) float64 from 0 to 16 and labels (1797,)."""
    file = _sklearn_datasets() / "data" / "digits.csv.gz"
    if not file.is_file():
        from sklearn.datasets import load_digits

        return load_digits().images, load_digits().target
    rows = np.loadtxt(file, delimiter=",")
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1]


def _photos() -> np.ndarray:
    """(2, 427, 640, 3) uint8: china, flower."""
    files = [_sklearn_datasets() / "images" / f"{name}.jpg" for name in ("china", "flower")]
    if not all(file.is_file() for file in files):
        from sklearn.datasets import load_sample_images

        return np.stack(load_sample_images().images)
    return np.stack([np.asarray(Image.open(file)) for file in files])


def _sklearn_datasets() -> Path:
    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets"


def part(domain: str, split: str) -> np.ndarray:
    """Which digits (positions in `load_digits`) make up a split of a domain."""
    order = permutation(1797, KEY).numpy()
    sizes = [*PARTS["source"], *PARTS["target"]]
    place = ("train", "val", "test").index(split) + (3 if domain == "target" else 0)
    start = sum(sizes[:place])
    return order[start : start + sizes[place]]


def blend(digits: np.ndarray, split: str) -> np.ndarray:
    """uint8 (n, 1, 28, 28) -> uint8 (n, 3, 28, 28): |photo - digit| with a crop per image."""
    photos = _photos()
    n = len(digits)
    which = integers(n, len(photos), KEY, split, "photo").tolist()
    top = integers(n, photos.shape[1] - SIDE + 1, KEY, split, "top").tolist()
    left = integers(n, photos.shape[2] - SIDE + 1, KEY, split, "left").tolist()
    crops = np.stack(
        [photos[w, t : t + SIDE, x : x + SIDE] for w, t, x in zip(which, top, left, strict=True)]
    )
    difference = np.abs(crops.transpose(0, 3, 1, 2).astype(np.int16) - digits.astype(np.int16))
    return difference.astype(np.uint8)


def _splits(name: str, domain: str, size: int | None, photos: bool = False) -> Splits:
    images, labels = enlarged()
    sets = {}
    for split in ("train", "val", "test"):
        index = part(domain, split)
        pixels = images[index]
        if photos:
            index = np.repeat(index, CROPS[split])
            pixels = blend(images[index], split)
        pixels = fit_arrays(pixels, size or SIDE, "squash")
        sets[split] = ImageSet(
            name, torch.from_numpy(pixels), torch.from_numpy(labels[index]), CLASSES
        )
    card = Card(name, CITATION, LICENCE, URL, "scikit-learn")
    return Splits(sets["train"], sets["val"], sets["test"], card)


def digits(*, seed: int = 0, size: Pixels | None = SIDE, download: bool = True) -> Splits:
    """The source: 600 / 98 / 200 grey digits. Independent of `seed`; never downloads."""
    return _splits("digits", "source", size)


def digits_m(*, seed: int = 0, size: Pixels | None = SIDE, download: bool = True) -> Splits:
    """The target: other digits blended with photographs, 1,800 / 98 / 201 RGB images."""
    return _splits("digits_m", "target", size, photos=True)


def other_digits(*, seed: int = 0, size: Pixels | None = SIDE, download: bool = True) -> Splits:
    """The digits of the target as they are, without photographs: 600 / 98 / 201 grey images."""
    return _splits("other_digits", "target", size)
