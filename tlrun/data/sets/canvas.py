"""A digit somewhere on a cluttered canvas: which one (class), and where (column "box").

After the "cluttered translated MNIST" of Mnih et al., "Recurrent models of visual attention",
NIPS 2014; the recipe was fixed before any training with it:

* The canvas has 60x60 pixels. The digit's 28x28 pixels lie at a uniform place wholly inside.
* 4 fragments of 8x8 pixels, each from the middle (rows and columns 4 to 23) of another image of
  the same split, lie at uniform places. Where things overlap, the brighter pixel shows.
* The box is the smallest one around the digit's pixels of at least 64: (left, top, right, bottom)
  in shares of the side, right and bottom behind the last pixel.

`canvas`: 20,000 MNIST training digits and 5,000 test digits, a canvas each. `digits_canvas`: the
1,200 / 196 / 401 digits of scikit-learn that `tlrun.data.sets.digits` trains, validates and tests
on, with 3 canvases for each training digit; no download. All draws are hashes: nothing depends on
the seed of a run. `CHECKSUMS` are recorded; a test recomputes them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tlrun.config.ranges import Pixels
from tlrun.data.examples.download import cached_images, file_md5
from tlrun.data.examples.fit import fit_arrays
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Card, Splits
from tlrun.data.pipeline.hashing import integers, permutation
from tlrun.data.sets import digits, mnist

SIDE, DIGIT, PIECE, PIECES, INK = 60, 28, 8, 4, 64
COUNTS = {"train": 20_000, "test": 5_000}  # of MNIST
COPIES = {"train": 3, "val": 1, "test": 1}  # of a bundled digit
CHECKSUMS = {  # ImageSet.checksum of each part at 60x60
    "canvas/train": "370113f9f62ae7a47d1812c70681e9881cc9d02a78767c26eff7ce2845858178",
    "canvas/test": "9f848e1e9c14b86c498bfb7d4c2843842c542677418bdbbea40413b233c4ebe7",
    "digits_canvas/train": "5ff9436a0b064d418891fb67f0891597a5fbad429f348cccbd7da8cca0b1b08f",
    "digits_canvas/val": "ac8e7a5880cb81e125ffb92cbc0a97bac4ff5c95b7b17278e70f65339554604b",
    "digits_canvas/test": "9e40e722add30a2fd09456c88f1ff1d339aaa6f449539dbb98acffe3d001e655",
}
CITATION = "Mnih et al., Recurrent models of visual attention, NIPS 2014 (recipe)"


def places(n: int, *key: object) -> np.ndarray:
    """(n, 2) top and left of the digits' 28x28 pixels."""
    return torch.stack(
        [integers(n, SIDE - DIGIT + 1, "canvas", *key, axis) for axis in ("top", "left")], 1
    ).numpy()


def draw(images: np.ndarray, *key: object) -> np.ndarray:
    """uint8 (n, 1, 28, 28) -> (n, 1, 60, 60). key: names the draws."""
    n = len(images)
    out = np.zeros((n, 1, SIDE, SIDE), np.uint8)
    for k in range(PIECES):
        other = (np.arange(n) + 1 + integers(n, n - 1, "canvas", *key, k, "other").numpy()) % n
        cut, put = (
            torch.stack([integers(n, high, "canvas", *key, k, what, axis) for axis in (0, 1)], 1)
            for what, high in (("cut", DIGIT - 8 - PIECE + 1), ("put", SIDE - PIECE + 1))
        )
        for i, ((a, b), (y, x)) in enumerate(zip((cut + 4).tolist(), put.tolist(), strict=True)):
            window = out[i, 0, y : y + PIECE, x : x + PIECE]
            piece = images[other[i], 0, a : a + PIECE, b : b + PIECE]
            np.maximum(window, piece, out=window)
    for i, (y, x) in enumerate(places(n, *key).tolist()):
        window = out[i, 0, y : y + DIGIT, x : x + DIGIT]
        np.maximum(window, images[i, 0], out=window)
    return out


def boxes(images: np.ndarray, *key: object) -> Tensor:
    """uint8 (n, 1, 28, 28) -> (n, 4) float32: where `draw` puts their ink."""
    ink: np.ndarray = images[:, 0] >= INK
    top, left = places(len(images), *key).T
    sides = []
    for axis, offset in ((1, left), (2, top)):  # over rows: columns with ink, and so on
        line = np.asarray(ink.any(axis))
        sides.append((offset + line.argmax(1), offset + DIGIT - line[:, ::-1].argmax(1)))
    (x0, x1), (y0, y1) = sides
    return torch.from_numpy(np.stack([x0, y0, x1, y1], 1) / SIDE).float()


def canvas(*, seed: int = 0, size: Pixels | None = SIDE, download: bool = True) -> Splits:
    """MNIST on canvases, 20,000 / 5,000; val is cut off train. Independent of `seed`."""
    sets = {}
    for split, name in (("train", "train"), ("test", "t10k")):
        images, file = mnist.images_of(name, DIGIT, "squash", download)
        order = permutation(len(images), "canvas", split)[: COUNTS[split]]
        chosen = images[order].numpy()

        def make(chosen: np.ndarray = chosen, split: str = split) -> np.ndarray:
            return fit_arrays(draw(chosen, "mnist", split), size or SIDE, "squash")

        pixels = cached_images(f"canvas-{split}", (file_md5(file), size), make)
        labels = mnist.labels_of(name, download)[order]
        column = {"box": boxes(chosen, "mnist", split)}
        sets[split] = ImageSet("canvas", pixels, labels, mnist.CLASSES, columns=column)
    card = Card("canvas", f"{CITATION}; {mnist.CITATION}", mnist.LICENCE, "", str(file.parent))
    return Splits(sets["train"], None, sets["test"], card)


def digits_canvas(*, seed: int = 0, size: Pixels | None = SIDE, download: bool = True) -> Splits:
    """scikit-learn's digits on canvases, 3,600 / 196 / 401. Independent of `seed`."""
    images, labels = digits.enlarged()
    sets = {}
    for split, copies in COPIES.items():
        index = np.concatenate([digits.part(domain, split) for domain in digits.PARTS])
        index = np.repeat(index, copies)
        chosen = images[index]
        pixels = fit_arrays(draw(chosen, "digits", split), size or SIDE, "squash")
        sets[split] = ImageSet(
            "digits_canvas",
            torch.from_numpy(pixels),
            torch.from_numpy(labels[index]),
            digits.CLASSES,
            columns={"box": boxes(chosen, "digits", split)},
        )
    citation = f"{CITATION}; {digits.CITATION}"
    card = Card("digits_canvas", citation, digits.LICENCE, digits.URL, "scikit-learn")
    return Splits(sets["train"], sets["val"], sets["test"], card)
