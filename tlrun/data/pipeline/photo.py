"""What photographs are augmented with: a crop, changes of colour, and random policies of both.

Everything works on whole batches of images in [0, 1], with parameters of each image's own, and
computes what torchvision's functions of the same names do to one image (the tests compare). Moves
are affine matrices from positions in the result to positions in the original, in units of half a
side, so that all of them take one resampling (`augment.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from tlrun.data.pipeline.hashing import Draws
from tlrun.data.pipeline.preprocess import unit

LUMA = (0.2989, 0.587, 0.114)  # torchvision's grey
TRIES = 10  # of random_resized_crop, as torchvision's
RATIO = (3 / 4, 4 / 3)
BINS = 31  # of magnitude, as torchvision's RandAugment and TrivialAugmentWide
RAND_OPS = 2  # operations of rand_augment in a row

# the operations of both policies, in torchvision's order
POLICY = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "colour",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
MOVES = POLICY[1:6]
SIGNED = POLICY[1:10]
# strength at the largest magnitude: rand_augment's, and that of trivial_augment ("wide")
RAND = dict.fromkeys(POLICY[6:10], 0.9) | {
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": 150 / 331,
    "translate_y": 150 / 331,
    "rotate": 30.0,
    "posterize": 4.0,
    "solarize": 1.0,
}
TRIVIAL = RAND | dict.fromkeys(POLICY[6:10], 0.99) | {
    "shear_x": 0.99,
    "shear_y": 0.99,
    "translate_x": 32 / 224,  # torchvision's 32 pixels, of its usual 224
    "translate_y": 32 / 224,
    "rotate": 135.0,
    "posterize": 6.0,
}  # fmt: skip


# ---- where a pixel comes from -------------------------------------------------------------------


def crop_boxes(draws: Draws, smallest: float, side: int) -> Tensor:
    """Boxes (B, 4) of `random_resized_crop`: top, left, height, width in pixels of a square image.

    The area's share is uniform in [smallest, 1], the logarithm of the ratio of the sides in that of
    RATIO; of TRIES draws the first that lies in the image is taken, without one the whole image.
    Szegedy et al., "Going deeper with convolutions", CVPR 2015, as torchvision's RandomResizedCrop.
    """
    tries = draws.uniform("random_resized_crop", TRIES, 2)
    area = side * side * (smallest + (1 - smallest) * tries[..., 0])
    low, high = (math.log(r) for r in RATIO)
    ratio = torch.exp(low + (high - low) * tries[..., 1])
    sides = torch.stack([torch.sqrt(area / ratio), torch.sqrt(area * ratio)], -1).round()
    fits = ((sides > 0) & (sides <= side)).all(-1)
    first = fits.int().argmax(1)
    chosen = sides[torch.arange(len(sides), device=sides.device), first]
    chosen = torch.where(fits.any(1)[:, None], chosen, torch.full_like(chosen, side))
    corner = draws.uniform("random_resized_crop/place", 2)
    return torch.cat([(corner * (side - chosen + 1)).floor(), chosen], 1)


def mirrored(x: Tensor, chosen: Tensor) -> Tensor:
    """x: (B, C, H, W), those `chosen` (B,) left-right."""
    return torch.where(chosen.view(-1, 1, 1, 1), x.flip(3), x)


def resized_crops(images: Tensor, boxes: Tensor, size: int, mirror: Tensor) -> Tensor:
    """What the boxes (B, 4) of `crop_boxes` show, as (B, C, size, size) float32 in [0, 1].

    images: (B, C, H, H) uint8 or float in [0, 1]. mirror: (B,) bool. Bilinear with antialiasing, as
    torchvision's resized_crop. A CPU has a fast kernel for bytes, whose results are bytes too; else
    nothing is rounded.
    """
    if images.dtype == torch.uint8 and images.device.type == "cpu":
        # one image at a time, so that only the result needs new memory, which is slow to get; the
        # kernel is 2.4 times as fast where a pixel's channels lie side by side
        images = images.contiguous(memory_format=torch.channels_last)
        out = torch.empty(*images.shape[:2], size, size)
        parts = zip(images.split(1), boxes.long().tolist(), mirror.tolist(), strict=True)
        with one_thread():
            for i, (image, (top, left, height, width), flip) in enumerate(parts):
                box = image[:, :, top : top + height, left : left + width]
                crop = F.interpolate(box, (size, size), mode="bilinear", antialias=True)[0]
                out[i] = crop.flip(2) if flip else crop
        return out.div_(255.0)
    rows = crop_weights(boxes[:, 0], boxes[:, 2], size, images.shape[-1])
    columns = crop_weights(boxes[:, 1], boxes[:, 3], size, images.shape[-1])
    return mirrored(rows[:, None] @ unit(images) @ columns[:, None].transpose(2, 3), mirror)


@contextmanager
def one_thread() -> Iterator[None]:
    """For many small calls of torch: to share one of them costs more than it saves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def crop_weights(start: Tensor, length: Tensor, size: int, stored: int) -> Tensor:
    """(B, size, stored): what each pixel of a side has of the stored ones between start and start +
    length (B,): a triangle as wide as a pixel of the result, but at least one of the image."""
    scale = (length / size)[:, None, None]
    pixel = torch.arange(stored, device=start.device) + 0.5
    centre = start[:, None, None] + scale * (torch.arange(size, device=start.device)[:, None] + 0.5)
    weights = (1 - (pixel - centre).abs() / scale.clamp_min(1)).clamp_min(0)
    start, length = start[:, None, None], length[:, None, None]
    weights = weights * ((pixel > start) & (pixel < start + length))
    return weights / weights.sum(2, keepdim=True)


def box_matrix(boxes: Tensor, side: int) -> Tensor:
    """(B, 3, 3): what shows the boxes (B, 4) of an image of that side as a whole image."""
    top, left, height, width = boxes.unbind(1)
    return affine(
        a=width / side,
        d=height / side,
        x=(2 * left + width) / side - 1,
        y=(2 * top + height) / side - 1,
    )


def affine(
    a: Tensor | float = 1.0,
    b: Tensor | float = 0.0,
    x: Tensor | float = 0.0,
    c: Tensor | float = 0.0,
    d: Tensor | float = 1.0,
    y: Tensor | float = 0.0,
) -> Tensor:
    """(B, 3, 3) of its entries, (B,) or numbers: x' = a x + b y + x, y' = c x + d y + y."""
    like = next(v for v in (a, b, x, c, d, y) if isinstance(v, Tensor))
    entries = [torch.as_tensor(v, device=like.device) for v in (a, b, x, c, d, y, 0.0, 0.0, 1.0)]
    return torch.stack([e.expand(like.shape) for e in entries], -1).view(-1, 3, 3)


def move(name: str, strength: Tensor) -> Tensor:
    """(B, 3, 3) of an operation of MOVES. strength: (B,), signed: a tangent, a share of the side,
    or degrees counter-clockwise; about the image's centre."""
    if name == "shear_x":
        return affine(b=strength)
    if name == "shear_y":
        return affine(c=strength)
    if name == "translate_x":
        return affine(x=-2 * strength)
    if name == "translate_y":
        return affine(y=-2 * strength)
    angle = torch.deg2rad(-strength)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return affine(a=cos, b=sin, c=-sin, d=cos)


# ---- colours: x (B, C, H, W) in [0, 1], strength (B,) -------------------------------------------


def _each(strength: Tensor) -> Tensor:
    return strength.view(-1, 1, 1, 1)


def _between(degenerate: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """0: the degenerate image, 1: x itself, above: beyond it."""
    return torch.lerp(degenerate.expand_as(x), x, _each(factor)).clamp_(0, 1)


def grey(x: Tensor) -> Tensor:
    """(B, 1, H, W)."""
    if x.shape[1] == 1:
        return x
    return (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * _each(factor)).clamp_(0, 1)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    return _between(grey(x).mean((1, 2, 3), keepdim=True), x, factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    return x if x.shape[1] == 1 else _between(grey(x), x, factor)


def sharpness(x: Tensor, factor: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional as F  # it takes a second to import

    return _between(F.adjust_sharpness(x, 0.0), x, factor)


def hue(x: Tensor, turn: Tensor) -> Tensor:
    """turn: (B,) in [-0.5, 0.5] of the circle of hues; saturation and value stay."""
    if x.shape[1] == 1:
        return x
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    r, g, b = x.unbind(1)
    span = chroma.clamp_min(1e-12)
    sector = torch.where(
        value == r, (g - b) / span, torch.where(value == g, 2 + (b - r) / span, 4 + (r - g) / span)
    )
    sector = sector + 6 * turn.view(-1, 1, 1)
    shifted = []
    for n in (5.0, 3.0, 1.0):  # red, green, blue from hue, saturation and value in one formula each
        k = torch.remainder(n + sector, 6)
        shifted.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(shifted, 1)


def _eight_bits(x: Tensor) -> Tensor:
    return (x * 255).round_().to(torch.uint8)


def posterize(x: Tensor, lost: Tensor) -> Tensor:
    """lost: how many of the 8 bits are set to 0."""
    kept = (255 << lost.round().to(torch.int32)) & 255
    return (_eight_bits(x).to(torch.int32) & kept.view(-1, 1, 1, 1)).to(x.dtype) / 255


def solarize(x: Tensor, strength: Tensor) -> Tensor:
    """Values of at least 1 - strength are inverted."""
    return torch.where(x >= 1 - _each(strength), 1 - x, x)


def autocontrast(x: Tensor, _strength: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional as F  # it takes a second to import

    return F.autocontrast(x)


def equalize(x: Tensor, _strength: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional as F  # it takes a second to import

    return F.equalize(_eight_bits(x)).to(x.dtype) / 255


def _one_plus(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, strength: change(x, 1 + strength)


COLOURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _one_plus(brightness),
    "colour": _one_plus(saturation),
    "contrast": _one_plus(contrast),
    "sharpness": _one_plus(sharpness),
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": autocontrast,
    "equalize": equalize,
}


def color_jitter(x: Tensor, draws: Draws, strength: float) -> Tensor:
    """Brightness, contrast and saturation by factors from 1 - s to 1 + s, hue by up to s/4 of its
    circle, in this order. The proportion is that of SimCLR (Chen et al., ICML 2020); torchvision's
    ColorJitter draws the order too."""
    u = (draws.uniform("color_jitter", 4) * 2 - 1) * strength
    for slot, change in enumerate((brightness, contrast, saturation)):
        x = change(x, 1 + u[:, slot])
    return hue(x, u[:, 3] / 4)


# ---- policies -----------------------------------------------------------------------------------


class Policy:
    """What a random policy does to each image: slots of an operation and a strength, (B, slots).

    kinds: int64, positions in POLICY. strength: float32, signed where the operation has a sign.
    """

    def __init__(self, kinds: Tensor, strength: Tensor) -> None:
        self.kinds, self.strength = kinds, strength

    @classmethod
    def rand_augment(cls, draws: Draws, magnitude: float, count: int) -> Policy:
        """`count` operations drawn with equal chances, all of one magnitude (0 to 30).

        Cubuk et al., "RandAugment", NeurIPS 2020; operations and strengths are torchvision's.
        """
        u = draws.uniform("rand_augment", count, 2)
        share = torch.full_like(u[..., 0], magnitude / (BINS - 1))
        return cls.of(u[..., 0], share, u[..., 1], RAND)

    @classmethod
    def trivial_augment(cls, draws: Draws, probability: float) -> Policy:
        """One operation of a random strength for this share of the images.

        Müller and Hutter, "TrivialAugment", ICCV 2021 (probability 1); as TrivialAugmentWide.
        """
        u = draws.uniform("trivial_augment", 4)
        share = (u[:, 1:2] * BINS).floor() / (BINS - 1)
        policy = cls.of(u[:, :1], share, u[:, 2:3], TRIVIAL)
        policy.kinds = torch.where(u[:, 3:] < probability, policy.kinds, 0)
        return policy

    @classmethod
    def of(cls, which: Tensor, share: Tensor, sign: Tensor, most: dict[str, float]) -> Policy:
        """which, sign: uniform in [0, 1). share: of the largest strength."""
        kinds = (which * len(POLICY)).long()
        largest = share.new_tensor([most.get(name, 0.0) for name in POLICY])[kinds]
        signed = torch.tensor([name in SIGNED for name in POLICY], device=kinds.device)[kinds]
        strength = share * largest
        return cls(kinds, torch.where(signed & (sign < 0.5), -strength, strength))

    def matrix(self) -> Tensor:
        """(B, 3, 3): all of its moves, one after the other."""
        whole = torch.eye(3, device=self.strength.device).expand(len(self.kinds), 3, 3)
        for kind, strength in zip(self.kinds.unbind(1), self.strength.unbind(1), strict=True):
            for name in MOVES:
                here = (kind == POLICY.index(name)).view(-1, 1, 1)
                whole = torch.where(here, whole @ move(name, strength), whole)
        return whole

    def colour(self, x: Tensor) -> Tensor:
        """x with all of its changes of colour, one after the other; the moves come before."""
        x = x.clone()
        kinds = self.kinds.cpu()  # what there is to do must be known here
        for slot in range(kinds.shape[1]):
            for name, change in COLOURS.items():
                rows = (kinds[:, slot] == POLICY.index(name)).nonzero()[:, 0].to(x.device)
                if len(rows):
                    x[rows] = change(x[rows], self.strength[rows, slot])
        return x
