"""Images of a batch mixed in pairs, their labels with them: mixup and CutMix.

    mixup   x = λ x_i + (1 − λ) x_j                                    y = λ y_i + (1 − λ) y_j
    cutmix  x = x_i with a box of x_j, of 1 − λ of the area          y = so, λ what is left of x_i

λ ~ Beta(α, α) for each image, j the one before i in the batch (of the first: the last), y one-hot.
Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; Yun et al., "CutMix:
Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019. For given
λ and box this is torchvision's MixUp and CutMix (the tests compare), which draw one of each a
batch. Where both are asked for, an image takes either, half of them each. Of several processes each
mixes its own share of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from tlrun.data.pipeline.hashing import Draws
from tlrun.errors import ConfigError

MIXING = ("mixup", "cutmix")


def mixed(
    x: Tensor, y: Tensor, num_classes: int, draws: Draws, ops: Mapping[str, float]
) -> tuple[Tensor, Tensor]:
    """x: (B, C, H, W), or (B, D) for mixup; y: (B,) int64 -> the same, and (B, K) float32 shares.

    ops: α of `mixup`, of `cutmix` or of both. Raises ConfigError for cutmix on features.
    """
    if "cutmix" in ops and x.ndim != 4:
        raise ConfigError("cutmix lays a part of an image into another; features know mixup")
    cuts = torch.full((len(x),), float("mixup" not in ops), device=x.device)
    if "mixup" in ops and "cutmix" in ops:
        cuts = (draws.uniform("mixing", 1)[:, 0] < 0.5).float()
    weight = torch.ones_like(cuts)  # λ where mixup acts
    if "mixup" in ops:
        weight = torch.where(cuts > 0, weight, beta(draws, "mixup", ops["mixup"]))
    out = mixup(x, weight)
    if "cutmix" in ops:
        boxes = cut_boxes(beta(draws, "cutmix", ops["cutmix"]), draws, *x.shape[2:])
        pasted = cutmix(x, boxes)
        out = torch.where(cuts.view(-1, 1, 1, 1) > 0, pasted, out)
        weight = torch.where(cuts > 0, kept_share(boxes, *x.shape[2:]), weight)
    return out, mixup(F.one_hot(y, num_classes).float(), weight)


def beta(draws: Draws, name: str, alpha: float) -> Tensor:
    """(B,) float32 of Beta(alpha, alpha): the inverse of its distribution function at a draw."""
    from scipy.special import betaincinv  # a third of a second to import

    u = draws.uniform(f"{name}/beta", 1)[:, 0]
    return torch.from_numpy(betaincinv(alpha, alpha, u.cpu().double().numpy())).to(u)


def mixup(x: Tensor, weight: Tensor) -> Tensor:
    """x: (B, ...); weight: (B,), of each itself; the rest is the one before it."""
    weight = weight.view(-1, *[1] * (x.ndim - 1))
    return x * weight + x.roll(1, 0) * (1 - weight)


def cut_boxes(weight: Tensor, draws: Draws, height: int, width: int) -> Tensor:
    """(B, 4) int64: top, left, bottom, right of boxes of the area 1 − weight (B,), their centres
    anywhere; what lies outside the image is cut off."""
    place = draws.uniform("cutmix/place", 2)
    half = 0.5 * torch.sqrt(1 - weight)
    y, x = (place[:, 0] * height).long(), (place[:, 1] * width).long()
    tall, wide = (half * height).long(), (half * width).long()
    top, left = (y - tall).clamp_min(0), (x - wide).clamp_min(0)
    return torch.stack([top, left, (y + tall).clamp_max(height), (x + wide).clamp_max(width)], 1)


def cutmix(x: Tensor, boxes: Tensor) -> Tensor:
    """x: (B, C, H, W), each with the box (B, 4) of the one before it."""
    top, left, bottom, right = (edge[:, None] for edge in boxes.unbind(1))
    rows, columns = (torch.arange(side, device=x.device) for side in x.shape[2:])
    inside_y, inside_x = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    inside = inside_y[:, None, :, None] & inside_x[:, None, None, :]
    return torch.where(inside, x.roll(1, 0), x)


def kept_share(boxes: Tensor, height: int, width: int) -> Tensor:
    """(B,): the share of an image outside its box."""
    top, left, bottom, right = boxes.unbind(1)
    return 1 - ((bottom - top) * (right - left)).float() / (height * width)
