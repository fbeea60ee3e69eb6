"""What a trained net is asked: of which task and domain, and by which labelled support."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Support:
    """Labelled images of the classes to tell apart. x: (M, ...) preprocessed; y: (M,) int64 from 0
    to way - 1, every class at least once."""

    x: Tensor
    y: Tensor

    @property
    def way(self) -> int:
        return int(self.y.max()) + 1


@dataclass(frozen=True)
class Query:
    """What `Method.predict` is asked beside the images.

    task: which of several tasks (None = the run's own). domain: whose statistics and head to use.
    support: examples of new classes, for few-shot methods.
    """

    task: str | None = None
    domain: str = "target"
    support: Support | None = None
