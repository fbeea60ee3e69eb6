"""The words of `data.source` and `data.target` as data sets: a pair, or several sources.

    {set: pacs, source: photo, target: sketch, ...}  ->  {source: {_target_: ...}, target: {...}}

`config/domains.py` has checked the words. One source makes a plain pair, several make the problem
of `multi_source.py`, each under its own name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tlrun.errors import ConfigError

MULTI_SOURCE = "tlrun.data.problems.multi_source.multi_source"
DOMAIN_IMAGES = "tlrun.data.sets.domain_images.domain_images"
OF_A_DOMAIN = (
    "set",
    "root",
    "channels",
    "fit",
    "grey_values",
    "val_fraction",
    "test_fraction",
    "skip_unreadable",
    "memory_gb",
)
OF_THE_WORDS = (*OF_A_DOMAIN, "domains", "transductive", "source", "target")
OF_A_PAIR = ("label_spaces", "source_classes", "target_classes")


def uses_words(conf: Mapping[str, Any]) -> bool:
    """Whether a group `data` names its domains by words."""
    return "domains" in conf and "_target_" not in conf


def data_sets(conf: Mapping[str, Any]) -> dict[str, Any]:
    """The group with a data set in place of each word. Raises ConfigError."""
    common = {key: conf[key] for key in OF_A_DOMAIN if key in conf}
    common["_target_"] = DOMAIN_IMAGES

    def block(words: list[str], **further: Any) -> dict[str, Any]:
        return {**common, "domains": words, **further}

    sources, target = _listed(conf.get("source")), _listed(conf.get("target"))
    pair = {key: value for key, value in conf.items() if key not in OF_THE_WORDS}
    if "channels" in conf:
        pair["channels"] = conf["channels"]
    pair["target"] = block(target, transductive=bool(conf.get("transductive", False)))
    if len(sources) < 2:
        return {**pair, "source": block(sources) if sources else None}
    for key in OF_A_PAIR:
        if pair.pop(key, None) not in (None, "shared"):
            raise ConfigError(f"data.{key} is for one source; data.source names {len(sources)}.")
    names = {re.sub(r"\W", "_", word): block([word]) for word in sources}
    return {**pair, "_target_": MULTI_SOURCE, "sources": names}


def _listed(words: Any) -> list[str]:
    if words is None:
        return []
    return [str(word) for word in words] if isinstance(words, list | tuple) else [str(words)]
