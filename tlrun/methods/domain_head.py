"""The keys of a domain head: `domain_hidden`, `domain_layers`, `domain_dropout`."""

from __future__ import annotations

from typing import Any


def domain_head_options(hidden: int, layers: int, dropout: float) -> dict[str, Any]:
    """Arguments of `DomainHead` behind the width of its input."""
    return {"hidden": hidden, "layers": layers, "dropout": dropout}
