"""The configuration that comes with the package: where it lies, what it builds. No torch."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
TARGET = re.compile(r"_target_['\"]?\s*:\s*['\"]?([A-Za-z_][\w.]*)")
GROUPS = ("method", "backbone", "terms", "balance")  # the folders of conf/ with one kind each


def conf_dir() -> Path:
    """The packaged configuration: inside the wheel, or beside the package in a checkout."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


@cache
def packaged(group: str) -> frozenset[str]:
    """What the package's own configuration builds in a place: method, backbone, data, ..."""
    if group == "data":  # sets stand in experiments and recipes, too
        return frozenset(t for t in targets_named_in(conf_dir()) if t.startswith("tlrun.data."))
    if group not in GROUPS:
        return frozenset()
    return frozenset(targets_named_in(conf_dir() / group))


def targets_named_in(folder: Path) -> set[str]:
    """Every `_target_` in the YAML files of a folder."""
    targets: set[str] = set()
    for file in folder.rglob("*.yaml"):
        targets.update(TARGET.findall(file.read_text(encoding="utf-8", errors="replace")))
    return targets


def is_foreign(target: str) -> bool:
    """Whether a dotted path is code of somebody else."""
    return target.partition(".")[0] != "tlrun"
