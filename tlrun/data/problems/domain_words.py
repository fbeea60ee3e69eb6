"""The words of `data.source` and `data.target` as data sets: a pair, or several sources.

    {set: pacs, source: photo, target: sketch, ...}  ->  {source: {_target_: ...}, target: {...}}

`config/domains.py` has checked the words. One source makes a plain pair, several make the problem
of `multi_source.py`, each under its own name, and none a target alone. The protocol of a domain
depends on its side:

    source   all images but `val_fraction` and `source_test_fraction` (0 by default, as published)
    target   data.transductive=auto: all images are trained on, without labels, and tested on, if
             there is a source and no label of the target is asked for; else `test_fraction` is held
             out. Where a set has published splits, these stand in for the fractions.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from tlrun.data.problems.options import Options
from tlrun.errors import ConfigError

log = logging.getLogger("tlrun")

MULTI_SOURCE = "tlrun.data.problems.multi_source.multi_source"
DOMAIN_IMAGES = "tlrun.data.sets.domain_images.domain_images"
READERS = {"digits_five": "tlrun.data.sets.digits_five.digits_five"}  # sets that are no photographs
OF_A_DOMAIN = (
    "set",
    "root",
    "channels",
    "fit",
    "grey_values",
    "val_fraction",
    "stratify",
    "skip_unreadable",
    "memory_gb",
    "max_train",
    "max_test",
)
OF_A_SIDE = ("source", "target", "test_fraction", "source_test_fraction", "transductive")
OF_A_PAIR = ("label_spaces", "source_classes", "target_classes")


def uses_words(conf: Mapping[str, Any]) -> bool:
    """Whether a group `data` names its domains by words."""
    return "domains" in conf and "_target_" not in conf


def data_sets(conf: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """The group with a data set in place of each word. Raises ConfigError."""
    reader = READERS.get(str(conf.get("set")), DOMAIN_IMAGES)
    common = {"_target_": reader, **{key: conf[key] for key in OF_A_DOMAIN if key in conf}}
    sources, target = _listed(conf.get("source")), _listed(conf.get("target"))
    of_source = _given(conf, test_fraction="source_test_fraction")
    of_target = _given(conf, test_fraction="test_fraction")
    if "transductive" in conf:
        of_target["transductive"] = is_transductive(conf, options.target_labels)
        if (
            of_target["transductive"]
            and options.classes is None
            and _uses_target_labels(conf, options)
        ):
            log.warning("data.transductive=true: the test images are labelled training images")

    def source_of(word: str) -> dict[str, Any]:
        return {**common, **of_source, "domains": [word]}

    left_out = (*OF_A_DOMAIN, *OF_A_SIDE, "domains")
    pair = {key: value for key, value in conf.items() if key not in left_out or key == "channels"}
    pair["target"] = {**common, **of_target, "domains": target}
    if len(sources) < 2:
        return {**pair, "source": source_of(sources[0]) if sources else None}
    for key in OF_A_PAIR:
        if pair.pop(key, None) not in (None, "shared"):
            raise ConfigError(f"data.{key} is for one source; data.source names {len(sources)}.")
    names = {re.sub(r"\W", "_", word): source_of(word) for word in sources}
    return {**pair, "_target_": MULTI_SOURCE, "sources": names}


def is_transductive(conf: Mapping[str, Any], target_labels: Any) -> bool:
    """Whether the target is trained and tested on the same images (`data.transductive`)."""
    asked = conf.get("transductive")
    if asked in (None, "auto"):
        return target_labels in ("none", 0) and bool(conf.get("source"))
    return bool(asked)


def _uses_target_labels(conf: Mapping[str, Any], options: Options) -> bool:
    """Whether labels of the target are trained on."""
    return options.target_labels not in ("none", 0) or not conf.get("source")


def _given(conf: Mapping[str, Any], **names: str) -> dict[str, Any]:
    """argument -> the value of its key, where the group has it."""
    return {name: conf[key] for name, key in names.items() if key in conf}


def _listed(words: Any) -> list[str]:
    if words is None:
        return []
    return [str(word) for word in words] if isinstance(words, list | tuple) else [str(words)]
