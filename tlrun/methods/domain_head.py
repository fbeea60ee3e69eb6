"""The keys of a domain head, checked: `domain_hidden`, `domain_layers`, `domain_dropout`."""

from __future__ import annotations

from typing import Any

from tlrun.errors import ConfigError, at_least


def domain_head_options(hidden: int, layers: int, dropout: float) -> dict[str, Any]:
    """Arguments of `DomainHead` behind the width of its input. Raises ConfigError for a bad one."""
    at_least(1, **{"method.domain_hidden": hidden})
    at_least(0, **{"method.domain_layers": layers})
    if not 0 <= dropout < 1:
        raise ConfigError(f"method.domain_dropout={dropout:g} must lie in [0, 1)")
    return {"hidden": hidden, "layers": layers, "dropout": dropout}
