"""Data without a source: one labelled set, the target, that a network is fine-tuned on.

`data.source: null` says so; for one's own files it is enough that `data.target` names them and
`data.source` names none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OWN_FILES = {  # sets of one's own files -> the keys that say where these lie
    "tlrun.data.sets.folder.folder": ("root", "list"),
    "tlrun.data.sets.features.features": ("path",),
}


def has_source(conf: Mapping[str, Any]) -> bool:
    """Whether the group `data` names a source. Data with a builder of their own always do."""
    if "_target_" in conf:
        return True
    source, target = conf.get("source"), conf.get("target")
    if not isinstance(source, Mapping) or not isinstance(target, Mapping):
        return source is not None
    return _names_files(source) or not _names_files(target)


def _names_files(block: Mapping[str, Any]) -> bool:
    keys = OWN_FILES.get(str(block.get("_target_")), ())
    return not keys or any(block.get(key) for key in keys)


def give_source(conf: Mapping[str, Any]) -> str:
    """What to type for a source, in words that follow "needs a source: "."""
    source = conf.get("source")
    keys = OWN_FILES.get(str(source.get("_target_")), ()) if isinstance(source, Mapping) else ()
    if keys:
        return f"set data.source.{keys[0]}={'FOLDER' if keys[0] == 'root' else 'FILE'}"
    return "choose a pair of sets, `tlrun list data`"
