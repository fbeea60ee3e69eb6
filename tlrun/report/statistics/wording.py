"""Words of sentences about many jobs or groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from tlrun.messages import plural

NAMED = 4  # of a list in a sentence


def named(texts: Iterable[str]) -> str:
    """The first few, each once: "dann; mcd; cdan; dan and 3 more"."""
    once = list(dict.fromkeys(texts))
    more = f" and {len(once) - NAMED} more" if len(once) > NAMED else ""
    return "; ".join(once[:NAMED]) + more


def counted(counts: Counter[Any]) -> str:
    """'0.1.0 (2 jobs), 0.2.0 (1 job)', the most common first."""
    return ", ".join(f"{name} ({plural(n, 'job')})" for name, n in counts.most_common())
