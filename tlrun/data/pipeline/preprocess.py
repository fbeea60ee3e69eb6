"""From raw examples to what the net sees, on the device; saved and exported with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlrun.data.examples.decode import REPAIR, GreyRange, read_image
from tlrun.data.examples.fit import BILINEAR, check_fit, check_interpolation
from tlrun.errors import ConfigError, DataError, did_you_mean

# mean and standard deviation of red, green and blue, by the name of `data.normalize`
STATISTICS = {
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "dpn": ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3),
}
NORMALIZE = (*STATISTICS, "instance", "standard", "none")
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL's convert("L")


def name_of(mean: Sequence[float], std: Sequence[float]) -> str | None:
    """The `data.normalize` that means these statistics of three channels; None if none does."""
    named = {**STATISTICS, "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))}
    given = np.array([mean, std])
    return next(
        (name for name, known in named.items() if np.allclose(given, known, atol=2e-3)), None
    )


def centre_corner(stored: int, size: int) -> tuple[int, int]:
    """Top and left of the centre of an image, as torchvision's CenterCrop rounds them."""
    return round((stored - size) / 2), round((stored - size) / 2)


def centre(images: Tensor, size: int) -> Tensor:
    """images: (B, C, H, H) -> (B, C, size, size)."""
    top, left = centre_corner(images.shape[-1], size)
    return images[:, :, top : top + size, left : left + size]


def unit(raw: Tensor) -> Tensor:
    """uint8 -> float32 in [0, 1]; floats and features as they are."""
    x = raw.to(torch.float32)
    return x.div_(255.0) if raw.dtype == torch.uint8 else x


class Preprocess(nn.Module):
    """raw (B, C, H, W) uint8 (or float in [0, 1]) -> (B, channels, H, W) float32, normalised.

    shape: (C, H, W) of an example, or (D,) for features.
    normalize: half      (x - 0.5) / 0.5
               imagenet  ImageNet's mean and std (clip, dpn: those of these families of nets)
               instance  each image and channel to zero mean and unit std
               standard  the given mean and std, per channel or per feature
               none      [0, 1] as is
    size: the side of what the net sees (default: that of `shape`). resize: the side at which images
    are stored and read from files, at least `size`: the net sees their centre (default: `size`).
    channels: 1 (luma) or 3 (grey is repeated). fit, interpolation: how files are brought to
    size (tlrun.data.examples.fit).
    grey: how deep grey of files becomes 8 bits (tlrun.data.examples.decode).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        normalize: str = "half",
        size: int | None = None,
        channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        fit: str = "squash",
        grey: GreyRange | None = None,
        resize: int | None = None,
        interpolation: str = BILINEAR,
    ) -> None:
        super().__init__()
        self.images = len(shape) == 3
        self.mode = normalize
        self.fit = check_fit(fit)
        self.interpolation = check_interpolation(interpolation)
        self.grey = {kind: (float(low), float(high)) for kind, (low, high) in (grey or {}).items()}
        if normalize not in NORMALIZE:
            raise ConfigError(
                f"data.normalize={normalize} is unknown: {did_you_mean(normalize, NORMALIZE)}"
            )
        if self.images:
            if channels not in (1, 3):
                raise ConfigError(f"data.channels={channels}: choose 1 (grey) or 3 (colour).")
            side = int(size or shape[1])
            self.output_shape: tuple[int, ...] = (channels, side, side)
            self.resize = int(resize or side)
            if self.resize < side:
                raise ConfigError(
                    f"data.resize={self.resize}: images are brought to this side before their "
                    f"centre is cut, so it is at least data.size={side}"
                )
        else:
            self.output_shape = (int(shape[0]),)
            if normalize in STATISTICS:
                raise ConfigError(
                    f"data.normalize={normalize} is for images; features take none, instance or "
                    "standard."
                )
        if normalize in STATISTICS:
            mean, std = STATISTICS[normalize]
            if channels == 1:  # the same look for grey: luma of the colour statistics
                mean = [sum(w * m for w, m in zip(LUMA, mean, strict=True))]
                std = [sum(w * s for w, s in zip(LUMA, std, strict=True))]
        elif normalize == "standard" and (mean is None or std is None):
            raise ConfigError(
                "data.normalize=standard needs mean and std (build_data measures them on the "
                "source)."
            )
        view = (-1, 1, 1) if self.images else (-1,)
        self.register_buffer(
            "mean", torch.tensor(list(mean or [0.0]), dtype=torch.float32).view(view), False
        )
        self.register_buffer(
            "std", torch.tensor(list(std or [1.0]), dtype=torch.float32).view(view), False
        )

    @property
    def crops(self) -> bool:
        """Whether images are stored larger than the net sees them."""
        return self.images and self.resize > self.output_shape[1]

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image as `read_files` gives it, or (D,)."""
        stored = (self.resize, self.resize) if self.images else ()
        return (self.output_shape[0], *stored)

    def to_unit(self, raw: Tensor, view: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """uint8 -> float32 in [0, 1] with the right channels; floats and features as they are.

        view: what is taken of images as stored (default: their centre), while a value is a byte.
        """
        return self._colour(self._float(raw, view))

    def normalize(self, x: Tensor, in_place: bool = False) -> Tensor:
        """x: (B, ...) float32 in [0, 1] (or features) -> normalised.

        in_place: x may be written over, which spares new memory.
        """
        if self.mode == "none":
            return x
        if self.mode == "instance":  # layer_norm is the fastest kernel for "zero mean, unit std"
            return F.layer_norm(x, x.shape[2:] if self.images else x.shape[1:], eps=1e-8)
        if self.mean.device != x.device:  # training hands over images that lie on its device
            self.to(x.device)
        if in_place and x.shape[1] >= len(self.mean):  # grey of colour statistics grows here
            return x.sub_(self.mean).div_(self.std)
        return x.sub(self.mean).div_(self.std)

    def to_unit_range(self, x: Tensor) -> Tensor:
        """Inputs of the net (B, C, H, W) as images in [0, 1] for the eye; what lies outside is cut.

        The inverse of `normalize`. Of `instance` there is none: the net does not see what it takes
        away, so all images are shown alike, from 2.5 standard deviations below the mean to 2.5
        above.
        """
        if self.mode == "instance":
            x = 0.5 + x / 5
        elif self.mode != "none":
            x = x * self.std.to(x.device) + self.mean.to(x.device)
        return x.clamp(0, 1)

    def forward(self, raw: Tensor) -> Tensor:
        """Both. Grey becomes colour as late as possible, so grey sets pay for one channel only."""
        x = self._float(raw)
        if self.images and x.shape[1] > self.output_shape[0]:
            x = self._colour(x)
        return self._colour(self.normalize(x, in_place=raw.dtype == torch.uint8))

    def _float(self, raw: Tensor, view: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        if self.images:
            self._check(raw)
            if view is not None:
                raw = view(raw)
            elif self.crops:
                raw = centre(raw, self.output_shape[1])
        return unit(raw)

    def _check(self, raw: Tensor) -> None:
        side = self.resize
        if raw.ndim != 4 or raw.shape[1] not in (1, 3) or raw.shape[2:] != (side, side):
            raise DataError(
                f"expected images (B, 1 or 3, {side}, {side}), got {tuple(raw.shape)}; "
                "resize them, or read them with preprocess.read_files(paths)."
            )

    def _colour(self, x: Tensor) -> Tensor:
        channels = self.output_shape[0]
        if not self.images or x.shape[1] == channels:
            return x
        if channels == 3:
            return x.repeat(1, 3, 1, 1)
        return (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)

    def spec(self) -> dict[str, Any]:
        """All that is needed to build it again, as plain values for JSON."""
        is_standard = self.mode == "standard"
        return {
            "shape": list(self.output_shape),
            "normalize": self.mode,
            "channels": self.output_shape[0] if self.images else None,
            "mean": self.mean.flatten().tolist() if is_standard else None,
            "std": self.std.flatten().tolist() if is_standard else None,
            "fit": self.fit,
            "interpolation": self.interpolation,
            "resize": self.resize if self.crops else None,
            "grey": {kind: list(values) for kind, values in self.grey.items()} or None,
        }

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Preprocess:
        """The inverse of `spec`."""
        given = {k: v for k, v in spec.items() if v is not None}
        return cls(**given)

    def read_files(self, paths: Iterable[str | PathLike[str]]) -> Tensor:
        """Image files -> uint8 (B, channels, size, size). Raises DataError that names the file."""
        if not self.images:
            raise DataError(
                "this model was trained on ready features, so it cannot read image files."
            )
        channels, size, _ = self.raw_shape
        rules = (self.fit, REPAIR, self.grey, self.interpolation)
        return torch.from_numpy(np.stack([read_image(p, size, channels, *rules) for p in paths]))
