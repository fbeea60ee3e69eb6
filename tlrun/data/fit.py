"""How an image of any size and mode becomes a square of `size` pixels: the rules, by name.

    squash   resize to size x size, whatever the aspect ratio
    crop     resize the shorter side to `size`, then cut the centre (the ImageNet convention)
    center   no scaling: cut the centre, or pad with black (MNIST-M 32 -> 28 is [2:30, 2:30])
    shrink   resize to 5/7 of `size` and pad with black: 20 + 2 x 4 for 28, MNIST's own geometry

An image that already has the right size is never touched, so files of prepared images work too.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np
from PIL import Image, ImageOps

from tlrun.errors import ConfigError, DataError, did_you_mean

FITS = ("squash", "crop", "center", "shrink")


def check_fit(fit: str) -> str:
    """Return `fit`, or raise ConfigError with the nearest name."""
    if fit not in FITS:
        raise ConfigError(f"unknown fit '{fit}': {did_you_mean(fit, FITS)}")
    return fit


def fit_image(image: Image.Image, size: int, fit: str) -> Image.Image:
    """Bring a PIL image to size x size by the rule `fit` (see the module)."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    bilinear = Image.Resampling.BILINEAR
    if fit == "squash":
        return image.resize((size, size), bilinear)
    if fit == "shrink":
        inner = round(size * 5 / 7)
        return _window(image.resize((inner, inner), bilinear), size)
    if fit == "crop":
        scale = size / min(width, height)
        image = image.resize(
            (max(size, round(width * scale)), max(size, round(height * scale))), bilinear
        )
    return _window(image, size)


def _window(image: Image.Image, size: int) -> Image.Image:
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))  # PIL pads with black outside


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """Any PIL mode -> "L" or "RGB"; 16-bit is scaled to 8, transparency is laid over white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        scale = 257.0 if values.max(initial=0) > 255 else 1.0
        image = Image.fromarray(np.clip(values / scale, 0, 255).astype(np.uint8))
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


SKIP = "repair or remove it, or leave such files out: skip_unreadable=true"  # in a data set


def read_image(
    path: str | PathLike[str],
    size: int,
    channels: int,
    fit: str,
    advice: str = "repair or remove it",
) -> np.ndarray:
    """One image file -> uint8 (channels, size, size). Raises DataError that names the file."""
    try:
        with Image.open(path) as image:
            if channels == 1 or image.format == "JPEG":
                image.draft("L" if channels == 1 else "RGB", (2 * size, 2 * size))  # decode small
            array = np.asarray(fit_image(to_mode(image, channels), size, fit))
    except FileNotFoundError as error:
        raise DataError(f"no image at '{path}'.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image '{path}' ({error}); {advice}.") from error
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def fit_arrays(images: np.ndarray, size: int, fit: str) -> np.ndarray:
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
        array = np.asarray(fit_image(picture, size, fit))
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
