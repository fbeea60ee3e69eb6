"""What the methods share: classes as text vectors, and features of the labelled target images.

The text vectors are the user's, of the text encoder that belongs to the image features (CLIP,
SigLIP, OpenCLIP ...): `method.text=FILE`, with one or several prompts of each class
(tlrun/data/examples/class_vectors.py). They become a part of the net, so a checkpoint holds them
and `predict` needs no file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlrun.data.examples.class_vectors import packaged, read_class_vectors
from tlrun.errors import ConfigError, DataError
from tlrun.fp32 import in_fp32
from tlrun.methods.base import Batches, Method, Phase, Progress, Requirements, Update
from tlrun.models.net import Net


class TextHead(nn.Module):
    """vectors: (K, D), rows of length 1. temperature: τ."""

    vectors: Tensor

    def __init__(self, classes: int, features: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.register_buffer("vectors", torch.zeros(classes, features))

    @in_fp32
    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> cos(x, t_k) / τ, (B, K)."""
        return F.normalize(features, dim=1) @ self.vectors.T / self.temperature


class OnTarget(Method):
    """Base of the methods that learn from the target's features alone, without a source."""

    requirements = Requirements(streams=("target",), target_labels="all", shared_classes=False)
    needs_images = False

    def baselines(self, data: Any) -> dict[str, dict[str, Any]]:
        """None: nothing was learned elsewhere that they could be compared with."""
        return {}

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        """Its phases have no steps: `start` does the work."""
        yield from ()


def read_text(net: Net, part: str, path: str | None, classes: tuple[str, ...]) -> None:
    """Put the vectors of a file into the net's text head. Raises ConfigError or DataError."""
    if not path:
        raise ConfigError(
            "which text vectors? Give method.text=FILE: an .npz with `features` (a row per prompt) "
            "and `classes` (whose prompt it is)"
        )
    head = net[part]
    assert isinstance(head, TextHead)
    vectors = torch.from_numpy(read_class_vectors(packaged(path), classes))
    if vectors.shape[1] != head.vectors.shape[1]:
        raise DataError(
            f"the text vectors of '{path}' have {vectors.shape[1]} numbers, the image features "
            f"{head.vectors.shape[1]}: take both from one model, after its projections."
        )
    head.vectors.copy_(vectors)


@torch.no_grad()
def labelled_features(net: Net, data: Any) -> tuple[Tensor, Tensor]:
    """Features (n, D) float64 of the target's labelled training images, and labels (n,) int64."""
    examples = data.role("target_train")
    if examples is None or examples.labels is None or not (examples.labels >= 0).any():
        raise ConfigError(
            "this method learns from labelled target images: set target_labels=all, or how many "
            "of each class (target_labels=4)"
        )
    was_training = net.training
    net.eval()
    device = next(iter(net.state_dict().values())).device
    x = torch.cat(
        [net(x, "target", head=None).features for x, *_ in data.batches(examples, device)]
    )
    net.train(was_training)
    labels = examples.labels.to(device)
    return x[labels >= 0].double(), labels[labels >= 0]
