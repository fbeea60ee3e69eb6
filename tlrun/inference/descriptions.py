"""Classes by description, when predicting: some added by an attribute row, seen ones calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlrun.data.examples.attribute_table import read_csv
from tlrun.data.problems.label_space import AttributeFacts, LabelSpace
from tlrun.errors import ConfigError, DataError, did_you_mean


def with_classes(space: LabelSpace, path: str | Path) -> LabelSpace:
    """The label space with the classes of a csv (class,attribute,...) added at its end.

    Columns are matched by name; an attribute without a column is missing for all. Raises
    ConfigError for a run without attributes, DataError for a class or column that does not fit.
    """
    facts = space.facts
    if not isinstance(facts, AttributeFacts):
        raise ConfigError(
            "--classes is for runs of a zero-shot method, such as method=eszsl; this one knows no "
            "classes by their attributes"
        )
    table, attribute_names = read_csv(Path(path)), facts.attribute_names
    for name in table.attributes:
        if name not in attribute_names:
            raise DataError(
                f"'{path}': unknown attribute '{name}': {did_you_mean(name, attribute_names)}"
            )
    rows, classes = list(facts.attributes), list(space.classes)
    for name, row in zip(table.classes, table.values, strict=True):
        if name in classes:
            raise DataError(f"'{path}': the run has a class '{name}' already; choose another name.")
        described = dict(zip(table.attributes, row.tolist(), strict=True))
        values = [described.get(a, float("nan")) for a in attribute_names]
        rows.append([None if np.isnan(v) else v for v in values])
        classes.append(name)
    wider = replace(space.tasks["class"], classes=tuple(classes))
    return replace(
        space,
        tasks={**space.tasks, "class": wider},
        facts=replace(facts, attributes=rows),
    )


def handicap(
    space: LabelSpace,
    summary: Mapping[str, Any],
    gamma: float | None = None,
    candidates: str | None = None,
) -> Tensor | None:
    """(C,) what is taken off the scores: γ for seen classes, 0 for the others; None for nothing.

    Seen are the training and the validation classes of the run. gamma: in place of the run's own.
    candidates: "all", or "unseen": the seen classes are then no candidates, inf. Raises ConfigError
    for a run without attributes, or without an unseen class.
    """
    facts = space.facts
    if not isinstance(facts, AttributeFacts):
        if gamma is not None or candidates is not None:
            raise ConfigError(
                "--candidates and --gamma are for runs of a zero-shot method, such as method=conse"
            )
        return None
    seen = torch.tensor([c in {*facts.training, *facts.validation} for c in space.classes])
    if candidates == "unseen":
        if gamma is not None:
            raise ConfigError(
                f"--gamma {gamma:g} is taken off the seen classes, and --candidates unseen leaves "
                "these out: give one of the two"
            )
        if seen.all():
            raise ConfigError(
                "--candidates unseen: this run knows no unseen class; add some by --classes FILE"
            )
        return torch.where(seen, torch.inf, 0.0)
    if gamma is not None and not isfinite(gamma):
        raise ConfigError(f"--gamma {gamma}: give a finite number (0 = no calibration)")
    if gamma is None:
        gamma = (summary.get("selected") or {}).get("calibration/gamma")
    return None if gamma is None else float(gamma) * seen.float()
