"""Augmentation of whole batches on the device, with draws that depend on nothing but their names.

Those of PHOTO act on pixels in [0, 1], before the normalisation, as everywhere (`photo.py`). The
others act on *normalised* images, so `invert`, `gain` and `offset` mean the same under every
normalisation: changes about mid-grey (half) or about the image's own mean (instance).

Whatever moves an image is one resampling: a crop, then mirror and affine operations, then the moves
of a random policy. With a crop, or where images are stored larger than the net sees them
(`data.resize`), it reads the stored image, so that what lies beyond the centre can be seen. A crop
and a mirror alone take the short way of most training: no resampling but the crop's own, on bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from tlrun.config.schema import Augmentation, check_section
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline import photo
from tlrun.data.pipeline.hashing import Draws
from tlrun.data.pipeline.mixing import MIXING
from tlrun.data.pipeline.preprocess import Preprocess, centre, centre_corner
from tlrun.errors import ConfigError

# name -> what its number means (its range: schema.Augmentation); 0 switches the operation off
OPS = {
    "random_resized_crop": "smallest share of the area, 0.08 = ImageNet's; sides 3:4 to 4:3",
    "color_jitter": "brightness, contrast and saturation from 1 - s to 1 + s, hue by s/4 of a turn",
    "rand_augment": "magnitude, 0 to 30, of RandAugment (9 = torchvision's default)",
    "rand_augment_ops": "operations of rand_augment in a row (2 if not given)",
    "trivial_augment": "probability of one operation of random strength (1 = TrivialAugment)",
    "flip": "probability of a mirror image (left-right)",
    "shift": "largest shift, as a fraction of the side, per axis",
    "rotate": "largest rotation in degrees",
    "scale": "scale drawn from 1 - s to 1 + s",
    "shear": "largest horizontal shear (tangent)",
    "invert": "probability of a sign flip of the whole image",
    "invert_channels": "probability of a sign flip, per channel",
    "gain": "contrast drawn from 1 - g to 1 + g, per channel",
    "offset": "brightness drawn from -o to +o (normalised units), per channel",
    "background": "standard deviation of a smooth random field added per channel",
    "noise": "standard deviation of normal noise per pixel",
    "cutout": "side in pixels of a square set to zero (mid-grey)",
    "binarize": "probability of black and white: what is not black becomes white",
    "blend": "probability of |image - backdrop|, a rolled training image of the target",
    "blend_margin": "the same of what blend leaves, a strip at an edge of such an image, stretched",
    "mixup": "alpha of Beta(alpha, alpha): shares of two images and of their labels",
    "cutmix": "the same, of the areas: a box of another image, and labels by area",
}
WARPS = ("shift", "rotate", "scale", "shear")
AFFINE = ("flip", *WARPS)
POLICIES = ("rand_augment", "trivial_augment")
PHOTO = ("random_resized_crop", "color_jitter", *POLICIES)  # on pixels
BLENDS = ("blend", "blend_margin")  # with images of the target
STORED = ("binarize", *BLENDS)  # on images as stored, before all others
IMAGES_ONLY = {*PHOTO, *AFFINE, "cutout", "background", *STORED, "cutmix"}
GEOMETRY = (*AFFINE, "random_resized_crop", *POLICIES)  # what moves an image


class Augment:
    """Operations by name and strength, e.g. {invert: 0.5, gain: 0.5, rotate: 15}; see `OPS`.

    Operations of strength 0 cost nothing; all that move the image share one resampling. Those of
    STORED act on images as they are stored, and BLENDS need other images than those of the batch,
    so the stream does them first (`of_stored`); what mixes labels too (`mixing`) it does last.
    Raises ConfigError for an unknown operation or a strength out of range.
    """

    def __init__(self, ops: Mapping[str, float] | None = None) -> None:
        check_section(ops or {}, Augmentation, "augment.", partial=True)
        self.ops: dict[str, float] = {}
        for name, value in (ops or {}).items():
            if value:
                self.ops[name] = float(value)
        self.warps = any(name in self.ops for name in WARPS)
        self.photo = any(name in self.ops for name in PHOTO)
        self.mixing = {name: self.ops[name] for name in MIXING if name in self.ops}
        if "rand_augment_ops" in self.ops and "rand_augment" not in self.ops:
            raise ConfigError("rand_augment_ops needs rand_augment, its magnitude: rand_augment=9")

    def __bool__(self) -> bool:
        return bool(self.ops)

    def reads_raw(self, preprocess: Preprocess) -> bool:
        """Whether it begins with images as stored, not with preprocessed ones."""
        return preprocess.images and (self.photo or (self.warps and preprocess.crops))

    def of_stored(self, raw: Tensor, backdrops: ImageSet | None, draws: Draws) -> Tensor:
        """What STORED do; `raw` itself where they do nothing. backdrops: images for BLENDS."""
        self.check_fits(raw.shape[1:])
        if "binarize" in self.ops:
            white = 255 if raw.dtype == torch.uint8 else 1
            chosen = draws.uniform("binarize", 1).view(-1, 1, 1, 1) < self.ops["binarize"]
            raw = torch.where(chosen & (raw > 0), torch.full_like(raw, white), raw)
        return raw if backdrops is None else blend(raw, backdrops, draws, self.ops)

    def of_raw(self, raw: Tensor, preprocess: Preprocess, draws: Draws) -> Tensor:
        """Images as stored -> what the net is given: preprocessed and augmented."""
        if not self.reads_raw(preprocess):
            return self(preprocess(raw), draws)
        x = self._pixels(raw, preprocess, draws)
        x = preprocess.normalize(x, in_place=raw.dtype == torch.uint8)
        return self._normalised(x, draws)

    def __call__(self, x: Tensor, draws: Draws) -> Tensor:
        """Of what is normalised. x: (B, C, H, W), or (B, D) for noise, gain and offset alone -> the
        same shape."""
        if not self.ops:
            return x
        self.check_fits(x.shape[1:])
        if self.warps:
            x = self._resample(x, self._affine(draws), list(x.shape))
        else:
            x = self._mirrored(x, draws)
        return self._normalised(x, draws)

    def check_fits(self, shape: Sequence[int]) -> None:
        """shape: (C, H, W) or (D,) of an example. Raises ConfigError."""
        if len(shape) == 1 and IMAGES_ONLY & self.ops.keys():
            raise ConfigError(
                f"augmentations {sorted(self.ops)}: features know only invert, gain, offset, noise "
                "and mixup."
            )

    def _pixels(self, raw: Tensor, preprocess: Preprocess, draws: Draws) -> Tensor:
        """raw: (B, C, H, W) as stored -> (B, C, S, S) float32 in [0, 1]: moves, then colours."""
        policies = self._policies(draws)
        size = preprocess.output_shape[-1]
        if self.warps or policies:
            x = preprocess.to_unit(raw, lambda images: images)
            stored = x.shape[-1]
            if smallest := self.ops.get("random_resized_crop"):
                boxes = photo.crop_boxes(draws, smallest, stored)
            else:
                centre = torch.tensor([*centre_corner(stored, size), size, size], device=x.device)
                boxes = centre.float().expand(len(x), 4)
            matrix = photo.box_matrix(boxes, stored)
            matrix = matrix @ photo.affine(*self._affine(draws).flatten(1).unbind(1))
            for policy in policies:
                matrix = matrix @ policy.matrix()
            x = self._resample(x, matrix[:, :2], [*x.shape[:2], size, size])
        else:
            x = preprocess.to_unit(raw, partial(self._cropped, size=size, draws=draws))
        if strength := self.ops.get("color_jitter"):
            x = photo.color_jitter(x, draws, strength)
        for policy in policies:
            x = policy.colour(x)
        return x

    def _policies(self, draws: Draws) -> list[photo.Policy]:
        policies = []
        if magnitude := self.ops.get("rand_augment"):
            count = int(self.ops.get("rand_augment_ops", photo.RAND_OPS))
            policies.append(photo.Policy.rand_augment(draws, magnitude, count))
        if probability := self.ops.get("trivial_augment"):
            policies.append(photo.Policy.trivial_augment(draws, probability))
        return policies

    @staticmethod
    def _resample(x: Tensor, theta: Tensor, shape: list[int]) -> Tensor:
        """theta: (B, 2, 3), from positions in the result, of `shape`, to those in x."""
        height, width = shape[2:]
        entries = theta[..., None, None]  # affine_grid's product of matrices takes half of the time
        rows = (torch.arange(height, device=x.device)[:, None] * 2 + 1) / height - 1
        columns = (torch.arange(width, device=x.device) * 2 + 1) / width - 1
        grid = entries[:, :, 0] * columns + (entries[:, :, 1] * rows + entries[:, :, 2])
        grid = grid.permute(0, 2, 3, 1)  # (B, H, W, 2)
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _normalised(self, x: Tensor, draws: Draws) -> Tensor:
        """All that does not move the image, on what is normalised."""
        x = self._colour(x, draws)
        if "background" in self.ops:
            field = draws.normal("background", x.shape[1], 6, 6)
            smooth = F.interpolate(field, x.shape[2:], mode="bilinear", align_corners=True)
            x = x + self.ops["background"] * smooth
        if "noise" in self.ops:
            x = torch.addcmul(
                x, draws.normal("noise", *x.shape[1:]), x.new_tensor(self.ops["noise"])
            )
        return self._cutout(x, draws) if "cutout" in self.ops else x

    def _affine(self, draws: Draws) -> Tensor:
        """(B, 2, 3) of sampling positions: mirror, shear, scale, rotate about the centre, shift."""
        get = self.ops.get
        symmetric = draws.uniform("affine", 5) * 2 - 1
        angle = symmetric[:, 0] * math.radians(get("rotate", 0.0))
        inverse = 1.0 / (1.0 + symmetric[:, 1] * get("scale", 0.0))
        shear = symmetric[:, 2] * get("shear", 0.0)
        shift = symmetric[:, 3:] * (2 * get("shift", 0.0))  # the side is 2 in grid units
        cos, sin = torch.cos(angle) * inverse, torch.sin(angle) * inverse
        mirror = torch.where(self._to_mirror(draws), -1.0, 1.0)
        return torch.stack(
            [
                torch.stack([mirror * cos, mirror * (shear * cos - sin), shift[:, 0]], 1),
                torch.stack([sin, shear * sin + cos, shift[:, 1]], 1),
            ],
            1,
        )

    def _cropped(self, images: Tensor, size: int, draws: Draws) -> Tensor:
        """images: (B, C, H, H) as stored -> (B, C, size, size): a crop or the centre, mirrored."""
        if not (smallest := self.ops.get("random_resized_crop")):
            return self._mirrored(centre(images, size), draws)
        boxes = photo.crop_boxes(draws, smallest, images.shape[-1])
        return photo.resized_crops(images, boxes, size, self._to_mirror(draws))

    def _mirrored(self, x: Tensor, draws: Draws) -> Tensor:
        """x: (B, C, H, W) with `flip` alone."""
        return photo.mirrored(x, self._to_mirror(draws)) if "flip" in self.ops else x

    def _to_mirror(self, draws: Draws) -> Tensor:
        """(B,) bool."""
        return draws.uniform("flip", 1)[:, 0] < self.ops.get("flip", 0.0)

    @staticmethod
    def _sign(u: Tensor, probability: float) -> Tensor:
        return torch.where(u < probability, -1.0, 1.0)

    def _colour(self, x: Tensor, draws: Draws) -> Tensor:
        """Sign flips, gain and offset as one multiplication and addition, per image and channel."""
        names = {"invert", "invert_channels", "gain", "offset"} & self.ops.keys()
        if not names:
            return x
        get = self.ops.get
        channels = x.shape[1] if x.ndim == 4 else 1
        factor = x.new_ones(len(x), channels)
        if "invert" in names:
            factor = factor * self._sign(draws.uniform("invert", 1), get("invert", 0.0))
        if "invert_channels" in names:
            factor = factor * self._sign(
                draws.uniform("invert_channels", channels), get("invert_channels", 0.0)
            )
        if "gain" in names:
            factor = factor * (1 + get("gain", 0.0) * (draws.uniform("gain", channels) * 2 - 1))
        view = (len(x), channels, 1, 1) if x.ndim == 4 else (len(x), 1)
        if "offset" not in names:
            return x * factor.view(view)
        offset = get("offset", 0.0) * (draws.uniform("offset", channels) * 2 - 1)
        return torch.addcmul(offset.view(view), x, factor.view(view))

    def _cutout(self, x: Tensor, draws: Draws) -> Tensor:
        """A square with its centre anywhere in the image (DeVries and Taylor, 2017) set to zero."""
        height, width = x.shape[2:]
        side = self.ops["cutout"]
        centre = draws.uniform("cutout", 2)
        rows = torch.arange(height, device=x.device) + 0.5
        columns = torch.arange(width, device=x.device) + 0.5
        inside_y = (rows - centre[:, :1] * height).abs() < side / 2
        inside_x = (columns - centre[:, 1:] * width).abs() < side / 2
        hole = inside_y[:, :, None] & inside_x[:, None, :]
        return x.masked_fill(hole[:, None], 0.0)


def blend(raw: Tensor, backdrops: ImageSet, draws: Draws, ops: Mapping[str, float]) -> Tensor:
    """|image − backdrop| for some images, as MNIST-M is made of digits and photographs.

    raw: (B, C, H, W) uint8. ops: the probabilities of BLENDS, that of the margin for what the other
    leaves. A backdrop is drawn from `backdrops`; of them only the texture is of use. Rolled along
    both axes by anything, what it shows is cut and misplaced, but in the image; a strip at its edge
    shows little of what stands in the centre.
    """
    blended, left = raw, torch.ones(len(raw), dtype=torch.bool, device=raw.device)
    for name, backdrop in zip(BLENDS, (_rolled, _margin), strict=True):
        if name not in ops:
            continue
        u = draws.uniform(name, 4)
        behind = backdrops.read((u[:, 1] * len(backdrops)).long().cpu()).to(raw.device)
        mixed = (raw.to(torch.int16) - backdrop(behind, u[:, 2:]).to(torch.int16)).abs()
        chosen = left & (u[:, 0] < ops[name])
        blended = torch.where(chosen.view(-1, 1, 1, 1), mixed.to(raw.dtype), blended)
        left = left & ~chosen
    return blended


def _rolled(images: Tensor, u: Tensor) -> Tensor:
    """images: (B, C, H, W), each moved by u (B, 2) of its height and width, around the edges."""
    count, _, height, width = images.shape
    rows, columns = (u[:, 0] * height).long(), (u[:, 1] * width).long()
    y = (torch.arange(height, device=images.device) - rows[:, None]) % height
    x = (torch.arange(width, device=images.device) - columns[:, None]) % width
    first = torch.arange(count, device=images.device)[:, None, None]
    return images[first, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def _margin(images: Tensor, u: Tensor) -> Tensor:
    """images: (B, C, H, H) uint8 -> of each a strip at an edge, a fifth of the side by a half of
    it, stretched to the whole; u (B, 2) says which edge and where along it."""
    side = images.shape[-1]
    thin, long = max(1, round(side / 5)), max(1, side // 2)
    edge = (u[:, 0] * 4).long()  # top, bottom, left, right
    along = (u[:, 1] * (side - long + 1)).long()
    across = (edge % 2) * (side - thin)
    lying = torch.stack(
        [across, along, torch.full_like(edge, thin), torch.full_like(edge, long)], 1
    )
    box = torch.where((edge < 2)[:, None], lying, lying[:, [1, 0, 3, 2]])
    upright = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    return photo.resized_crops(images, box.float(), side, upright).mul_(255.0).round_()
