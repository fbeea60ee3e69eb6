"""From an image file to pixels: any format and mode, grey of any depth; messages name the file.

Grey of more than 8 bits (Pillow's modes I, I;16 and F) has no white of its own: the same file may
hold 12 bits, 16 bits or fractions of 1. One rule holds for a whole data set, `GreyRange`: the value
that is black and the one that is white, of integers ("I") and of floats ("F"). It is saved with the
run, and `predict` reads by it. Colour of 16 bits a channel comes from Pillow as its upper 8.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tlrun.data.examples.fit import BILINEAR, fit_image
from tlrun.data.examples.image_files import formats, text_of
from tlrun.errors import DataError

log = logging.getLogger("tlrun")

REPAIR = "repair or remove it"
DRAFT = 2  # JPEG is decoded at the smallest scale of at least so many times the size asked for
PHOTOMETRIC, MIN_IS_WHITE = 262, 0  # a tag of TIFF, which Pillow heeds up to 8 bits only

GreyRange = Mapping[str, tuple[float, float]]  # "I", "F" -> (black, white)
FULL: GreyRange = {"I": (0.0, 65535.0), "F": (0.0, 1.0)}  # where no set says otherwise


class Extremes(NamedTuple):
    """Of one deep grey image: its kind ("I" or "F"), smallest and largest finite value, and
    whether all are whole numbers."""

    kind: str
    low: float
    high: float
    whole: bool


def extremes(path: str | PathLike[str]) -> Extremes | None:
    """None for an image of 8 bits, of which only the header is read. Raises DataError."""
    with opened(path) as image:
        if not is_deep(image):
            return None
        values = np.asarray(image, dtype=np.float64)
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        return Extremes(image.mode[0], low, high, bool((values == np.rint(values)).all()))


def grey_range(ranges: Iterable[Extremes | None]) -> dict[str, tuple[float, float]]:
    """The rule of a set, from the extremes of its images; empty if none is deep.

    Whole numbers: 0 to the largest value of as many bits as its maximum needs, at least 8 (255,
    511, ..., 65535). Fractions: 0 to 1, or to the maximum if that is above 1. With negative values:
    from the minimum to the maximum.
    """
    rule: dict[str, tuple[float, float]] = {}
    deep = [e for e in ranges if e is not None]
    for kind in sorted({e.kind for e in deep}):
        ours = [e for e in deep if e.kind == kind]
        low, high = min(e.low for e in ours), max(e.high for e in ours)
        if low < 0:
            rule[kind] = (low, max(high, low + 1e-6))
        elif kind == "F" and high <= 1:
            rule[kind] = (0.0, 1.0)
        elif all(e.whole for e in ours):
            rule[kind] = (0.0, float((1 << max(8, int(high).bit_length())) - 1))
        else:
            rule[kind] = (0.0, high)
    return rule


def is_deep(image: Image.Image) -> bool:
    """Whether it is grey of more than 8 bits."""
    return image.mode[0] == "I" or image.mode == "F"


def to_mode(image: Image.Image, channels: int, grey: GreyRange | None = None) -> Image.Image:
    """Any PIL mode -> "L" or "RGB". Deep grey is scaled by the rule `grey`, transparency laid over
    white, the orientation that the camera noted applied. Nothing is copied without need: the image
    given may be the one returned, and is itself turned."""
    tags: Any = getattr(image, "tag_v2", {})
    inverted = is_deep(image) and tags.get(PHOTOMETRIC) == MIN_IS_WHITE
    ImageOps.exif_transpose(image, in_place=True)
    if is_deep(image):
        kind = image.mode[0]
        black, white = {**FULL, **(grey or {})}[kind]
        if kind not in (grey or {}):  # the warning is shown with the name of the file
            warnings.warn(
                f"grey of more than 8 bits, of which the run saw none: {black:g} is taken as "
                f"black, {white:g} as white",
                stacklevel=2,
            )
        values = np.nan_to_num(
            np.asarray(image, dtype=np.float64), nan=black, posinf=white, neginf=black
        )
        shares = np.clip((values - black) / (white - black), 0, 1)
        shares = 1 - shares if inverted else shares
        image = Image.fromarray(np.rint(255 * shares).astype(np.uint8))
    elif image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def read_image(
    path: str | PathLike[str],
    size: int,
    channels: int,
    fit: str,
    advice: str = REPAIR,
    grey: GreyRange | None = None,
    interpolation: str = BILINEAR,
) -> np.ndarray:
    """One image file -> uint8 (channels, size, size). Raises DataError that names the file."""
    with opened(path, advice) as image:
        if channels == 1 or image.format == "JPEG":
            image.draft("L" if channels == 1 else "RGB", (DRAFT * size, DRAFT * size))
        array = np.asarray(fit_image(to_mode(image, channels, grey), size, fit, interpolation))
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


@contextmanager
def opened(path: str | PathLike[str], advice: str = REPAIR) -> Iterator[Image.Image]:
    """The image of a file. What fails while it is open is a DataError that names the file, and
    Pillow's warnings name it too. Only regular files are opened: a pipe would wait for ever."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("it is no regular file")
        with _named_warnings(path), Image.open(path, formats=formats()) as image:
            yield image
    except FileNotFoundError as error:
        raise DataError(f"no image at '{text_of(path)}'.") from error
    except Exception as error:  # Pillow raises a dozen kinds for damaged files
        why = _reason(error, path)
        raise DataError(f"cannot read the image '{text_of(path)}' ({why}); {advice}.") from error


def _reason(error: Exception, path: str | PathLike[str]) -> str:
    """Why a file cannot be decoded."""
    if isinstance(error, UnidentifiedImageError):  # its own words are the path again
        return "of no format that Pillow reads" if os.path.getsize(path) else "it is empty"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


# ---- warnings ---------------------------------------------------------------------------------

_reading = threading.local()  # .path: the file that this thread decodes
_lock = threading.Lock()
_said: set[str] = set()
_show_others: Any = warnings.showwarning


@contextmanager
def _named_warnings(path: str | PathLike[str]) -> Iterator[None]:
    """Pillow's warnings of this thread become a line that names the file, each of them once.

    `warnings.catch_warnings` would serve, but it changes all threads, and images are decoded in
    several.
    """
    global _show_others
    with _lock:
        if warnings.showwarning is not _show:
            _show_others, warnings.showwarning = warnings.showwarning, _show
    _reading.path = path
    try:
        yield
    finally:
        _reading.path = None


def _show(message: Any, category: Any, filename: str, lineno: int, *rest: Any, **more: Any) -> None:
    path = getattr(_reading, "path", None)
    if path is None:
        _show_others(message, category, filename, lineno, *rest, **more)
    elif (words := " ".join(str(message).split())) not in _said:
        _said.add(words)
        log.warning("'%s': %s", text_of(path), words)
