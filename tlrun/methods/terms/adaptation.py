"""What the terms of unsupervised adaptation read from an update, or why they cannot."""

from __future__ import annotations

from torch import Tensor

from tlrun.errors import ConfigError
from tlrun.methods.base import Update


def shown(update: Update, term: str, domain: str, what: str) -> Tensor:
    """features (B, D) or logits (B, K) of a domain. Raises ConfigError where they are not there."""
    value = getattr(update.outputs.get(domain), what, None)
    if value is None:
        raise ConfigError(
            f"terms=[{term}] needs the {what} of {domain} images, and the main updates of this "
            "method hold none"
        )
    return value


def each_domain(update: Update, term: str, what: str) -> list[Tensor]:
    """Of the target, and before it of the source where the update shows it."""
    domains = [d for d in ("source", "target") if d == "target" or d in update.outputs]
    return [shown(update, term, domain, what) for domain in domains]
