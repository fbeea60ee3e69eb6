"""How an image of any size and mode becomes a square of `size` pixels: the rules, by name.

    squash   resize to size x size, whatever the aspect ratio
    crop     resize the shorter side to `size`, then cut the centre (the ImageNet convention)
    center   no scaling: cut the centre, or pad with black (MNIST-M 32 -> 28 is [2:30, 2:30])
    shrink   resize to 5/7 of `size` and pad with black: 20 + 2 x 4 for 28, MNIST's own geometry

An image that already has the right size is never touched, so files of prepared images work too.
What is scaled is scaled by an interpolation of INTERPOLATIONS (`data.interpolation`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from tlrun.errors import ConfigError, DataError, did_you_mean

FITS = ("squash", "crop", "center", "shrink")
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
BILINEAR = "bilinear"


def check_fit(fit: str) -> str:
    """Return `fit`, or raise ConfigError with the nearest name."""
    if fit not in FITS:
        raise ConfigError(f"unknown fit '{fit}': {did_you_mean(fit, FITS)}")
    return fit


def check_interpolation(name: str) -> str:
    """Return the name, that of bilinear for an `auto` that no weights have resolved."""
    if name == "auto":
        return BILINEAR
    if name not in INTERPOLATIONS:
        raise ConfigError(f"data.interpolation={name}: {did_you_mean(name, INTERPOLATIONS)}")
    return name


def fit_image(
    image: Image.Image, size: int, fit: str, interpolation: str = BILINEAR
) -> Image.Image:
    """Bring a PIL image to size x size by the rule `fit` (see the module)."""
    how = INTERPOLATIONS[interpolation]
    width, height = image.size
    if (width, height) == (size, size):
        return image
    if fit == "squash":
        return image.resize((size, size), how)
    if fit == "shrink":
        inner = round(size * 5 / 7)
        return _window(image.resize((inner, inner), how), size)
    if fit == "crop":
        return image.resize((size, size), how, _centre(width, height, size))
    return _window(image, size)


def _centre(width: int, height: int, size: int) -> tuple[float, float, float, float]:
    """The window that stays of a picture whose shorter side becomes `size`, in pixels of the
    picture: nothing beyond it is ever scaled."""
    scale = size / min(width, height)
    starts, ends = [], []
    for length in (width, height):
        scaled = max(size, round(length * scale))
        starts.append((scaled - size) // 2 * length / scaled)
        ends.append(min(length, starts[-1] + size * length / scaled))
    return starts[0], starts[1], ends[0], ends[1]


def _window(image: Image.Image, size: int) -> Image.Image:
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))  # PIL pads with black outside


def fit_arrays(
    images: np.ndarray, size: int, fit: str, interpolation: str = BILINEAR
) -> np.ndarray:
    """uint8 (N, C, H, W), C 1 or 3 -> uint8 (N, C, size, size), each image by the rule `fit`."""
    if images.shape[2:] == (size, size):
        return images
    out = np.zeros((len(images), images.shape[1], size, size), np.uint8)
    if fit == "center":  # a copy of a window: no need for PIL
        (top_in, top_out, height), (left_in, left_out, width) = (
            _overlap(s, size) for s in images.shape[2:]
        )
        out[:, :, top_out : top_out + height, left_out : left_out + width] = images[
            :, :, top_in : top_in + height, left_in : left_in + width
        ]
        return out
    for i, image in enumerate(images):
        picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        array = np.asarray(fit_image(picture, size, fit, interpolation))
        out[i] = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return out


def _overlap(inside: int, outside: int) -> tuple[int, int, int]:
    """Start in the image, start in the window, common length, of two centred lengths."""
    start = (inside - outside) // 2
    return max(start, 0), max(-start, 0), min(inside, outside)


def square(shape: Sequence[int], name: str) -> int:
    """The side of a (C, S, S) shape; DataError for another shape."""
    if len(shape) != 3 or shape[1] != shape[2]:
        raise DataError(f"{name}: images must be square (C, S, S), these are {tuple(shape)}.")
    return int(shape[1])
