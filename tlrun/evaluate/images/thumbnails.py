"""What the net is given, as small pictures: of at most SIDE pixels and LIMIT bytes each."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.data.pipeline.streams import batches

SIDE = 96  # pixels; smaller images stay as they are
LIMIT = 4_000  # bytes of an encoded thumbnail, so that 200 of them take 1.1 MB of a page
QUALITIES = (85, 70, 50, 30, 10)  # of JPEG: the first that keeps the limit
TRUE, PREDICTED = "#009E73", "#D55E00"  # of boxes; Okabe and Ito's green and orange


def inputs(examples: ImageSet, index: Tensor, preprocess: Preprocess) -> Tensor:
    """(n, C, H, W) float32 on the CPU: what the net is given of the examples `index` (n,)."""
    chosen = examples.subset(index.cpu())
    parts = [x.float().cpu() for x, _, _ in batches(chosen, preprocess, "cpu", 100)]
    return torch.cat(parts) if parts else torch.zeros(0, *preprocess.output_shape)


def thumbnails(x: Tensor, preprocess: Preprocess) -> list[str]:
    """Of inputs (n, C, H, W): each as base64 of a PNG (small ones, without loss) or a JPEG."""
    return [encode(image) for image in to_images(x, preprocess)]


def boxed(x: Tensor, preprocess: Preprocess, boxes: Sequence[tuple[Tensor, str]]) -> list[str]:
    """The same with boxes drawn: pairs of (n, 4) (left, top, right, bottom; shares of the side) and
    their colour. A box that is not known (NaN) is left out."""
    pictures = []
    for place, image in enumerate(to_images(x, preprocess)):
        image = image.convert("RGB")
        if image.width < SIDE:  # a line one pixel wide would hide what it encloses
            image = image.resize((SIDE, SIDE), Image.Resampling.NEAREST)
        draw = ImageDraw.Draw(image)
        for sides, colour in boxes:
            left, top, right, bottom = (sides[place].double().cpu() * image.width).tolist()
            if left == left and left <= right and top <= bottom:
                draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=2)
        pictures.append(encode(image))
    return pictures


def to_images(x: Tensor, preprocess: Preprocess) -> list[Image.Image]:
    """Inputs (n, C, H, W) as images for the eye, grey ones in one channel."""
    pixels = preprocess.to_unit_range(x.float().cpu()).mul(255).round().to(torch.uint8)
    return [_image(each) for each in pixels.permute(0, 2, 3, 1).numpy()]


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    """(H, W, C) -> a picture of at most SIDE pixels."""
    grey = pixels.shape[2] == 1 or bool((pixels == pixels[:, :, :1]).all())
    image = Image.fromarray(pixels[:, :, 0] if grey else pixels)
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return image


def encode(image: Image.Image) -> str:
    """base64 of at most LIMIT bytes, but for noise that no quality brings below it."""
    content = _bytes(image, "PNG", optimize=True) if max(image.size) < SIDE else b""
    if not content or len(content) > LIMIT:
        for quality in QUALITIES:
            content = _bytes(image, "JPEG", quality=quality, optimize=True)
            if len(content) <= LIMIT:
                break
    return base64.b64encode(content).decode("ascii")


def _bytes(image: Image.Image, kind: str, **options: int | bool) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
