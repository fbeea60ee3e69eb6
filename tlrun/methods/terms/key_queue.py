"""For `terms=[bi_tuning]`: the last keys of each class."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class KeyQueue:
    """The last `size` keys of each class; a place that nothing was put into yet holds none.

    keys: (C, size, D). seen: (C,) int64, how many of a class were put in so far.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.keys = torch.zeros(0, size, 0)
        self.seen = torch.zeros(0, dtype=torch.long)

    def open(self, num_classes: int, dim: int, device: torch.device) -> None:
        """Empty, for keys (B, dim)."""
        self.keys = torch.zeros(num_classes, self.size, dim, device=device)
        self.seen = torch.zeros(num_classes, dtype=torch.long, device=device)

    def all(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The keys that there are, (N, D), and their classes, (N,)."""
        self.keys, self.seen = self.keys.to(device), self.seen.to(device)
        place = torch.arange(self.size, device=device)
        label, at = (place < self.seen[:, None]).nonzero(as_tuple=True)
        return self.keys[label, at], label

    def put(self, keys: Tensor, y: Tensor) -> None:
        """keys: (B, D), y: (B,); the oldest of their classes make room.

        Of several processes all keys, in the order of one: every queue is then the same.
        """
        keys, y = of_all_processes(keys), of_all_processes(y)
        same = y[:, None] == y
        earlier, later = same.tril(-1).sum(1), same.triu(1).sum(1)
        last = later < self.size  # where a batch has more of a class than there are places
        place = (self.seen[y] + earlier) % self.size
        self.keys[y[last], place[last]] = keys[last]
        self.seen += torch.bincount(y, minlength=len(self.seen))

    def state_dict(self) -> dict[str, Any]:
        return {"keys": self.keys, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.keys, self.seen = state["keys"].clone(), state["seen"].clone()


def of_all_processes(x: Tensor) -> Tensor:
    """x: (B, ...), the same shape everywhere. Process r of w has examples r, r + w, ... of all."""
    if not (dist.is_available() and dist.is_initialized()):
        return x
    pieces = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(pieces, x.contiguous())
    return torch.stack(pieces, 1).flatten(0, 1)
