"""Classes by description, when predicting: some added by an attribute row, seen ones calibrated."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlrun.data.examples.attributes import read_csv
from tlrun.errors import ConfigError, DataError, did_you_mean


def with_classes(space: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """label_space.json with the classes of a csv (class,attribute,...) added at its end.

    Columns are matched by name; an attribute without a column is missing for all. Raises
    ConfigError for a run without attributes, DataError for a class or column that does not fit.
    """
    wider: dict[str, Any] = copy.deepcopy(dict(space))
    facts = wider.get("facts") or {}
    if "attributes" not in facts:
        raise ConfigError(
            "--classes is for runs of a zero-shot method, such as method=eszsl; this one knows no "
            "classes by their attributes"
        )
    table, known = read_csv(Path(path)), facts["attribute_names"]
    for name in table.attributes:
        if name not in known:
            raise DataError(f"'{path}': unknown attribute '{name}': {did_you_mean(name, known)}")
    for name, row in zip(table.classes, table.values, strict=True):
        if name in wider["classes"]:
            raise DataError(f"'{path}': the run has a class '{name}' already; choose another name.")
        value = dict(zip(table.attributes, row.tolist(), strict=True))
        found = [value.get(a, float("nan")) for a in known]
        facts["attributes"].append([None if np.isnan(v) else v for v in found])
        wider["classes"].append(name)
    wider["tasks"]["class"]["classes"] = list(wider["classes"])
    return wider


def handicap(space: Mapping[str, Any], summary: Mapping[str, Any]) -> Tensor | None:
    """(C,) γ for the classes that were trained on, 0 for the others; None without a γ."""
    gamma = (summary.get("selected") or {}).get("calibration/gamma")
    seen = (space.get("facts") or {}).get("training")
    if gamma is None or not seen:
        return None
    return torch.tensor([float(gamma) * (c in seen) for c in space["classes"]])
