"""How many processes train a run. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def world_size(cfg: Mapping[str, Any]) -> int:
    """`trainer.devices` processes on each of `trainer.nodes` machines."""
    return int(cfg["trainer"]["nodes"]) * int(cfg["trainer"]["devices"])
