"""How several sets share a batch: sizes in proportion to n^alpha, the total fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.streams import Stream


def batch_sizes(
    counts: Mapping[str, int], total: int, alpha: float, world: int = 1
) -> dict[str, int]:
    """Parts of a batch of `total`, each a multiple of `world`, at least one of it.

    counts: examples of each set. The largest remainders get what rounding down leaves.
    """
    weights = {name: float(n) ** alpha for name, n in counts.items()}
    units = total // world
    exact = {name: units * w / sum(weights.values()) for name, w in weights.items()}
    parts = {name: max(1, int(share)) for name, share in exact.items()}
    while (left := units - sum(parts.values())) != 0:
        sign = 1 if left > 0 else -1
        able = [name for name in parts if parts[name] + sign >= 1]
        if not able:
            break  # fewer examples than sets: one of each
        chosen = max(able, key=lambda name: sign * (exact[name] - parts[name]))
        parts[chosen] += sign
    return {name: part * world for name, part in parts.items()}


def part_of_batch(
    counts: Mapping[str, int],
    alpha: float,
    name: str,
    examples: ImageSet,
    *,
    batch_size: int,
    world: int = 1,
    **settings: Any,
) -> Stream:
    """A set's stream, for `Phase.sampling`: its part of len(counts) · batch_size images."""
    size = batch_sizes(counts, batch_size * len(counts), alpha, world)[name]
    return Stream(name, examples, batch_size=size, world=world, **settings)
