"""`tlrun reproduce RUN_DIR`: run a saved config again in a new folder and compare.

Equal means: the same rows of metrics.jsonl but for "time", and bit-equal weights.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from tlrun.config import load_config, plain
from tlrun.engine import checkpoint
from tlrun.errors import ConfigError
from tlrun.launch import execute
from tlrun.resume import differences
from tlrun.run_dir import RunDir

log = logging.getLogger(__name__)

SHOWN = 10  # differences of one kind that are printed
IGNORED = ("tags", "baseline", "choices", "dry_run")


def reproduce(path: Path, overrides: Sequence[str] = ()) -> int:
    """Run RUN_DIR's config (with overrides) again and print what differs: 0 if nothing, else 1."""
    old = RunDir.open(path)
    if old.read_status().get("state") != "completed":
        raise ConfigError(f"{path} is not complete; finish it first: tlrun resume {path}")
    if not (old.checkpoints / "last.pt").is_file():
        raise ConfigError(f"{path} has no checkpoints/last.pt left to compare weights with")
    cfg = load_config(old.config, list(overrides))
    OmegaConf.set_struct(cfg, False)
    cfg.baseline = False
    new = RunDir.create(old.path.with_name(old.path.name + "_reproduced"))
    OmegaConf.save(cfg, new.config)
    OmegaConf.save(OmegaConf.create(list(overrides)), new.overrides)
    execute(new)
    found = list(compare(old, new))
    for line in found:
        print(line)
    if found and (longer := old.read_status().get("resumed_with")):
        print(f"note: the run was resumed with {' '.join(longer)}; here it is trained in one go")
    verdict = "differs" if found else "reproduced: metrics and weights are equal, bit for bit"
    print(f"{verdict}\n  before: {old.path}\n  again:  {new.path}")
    return 1 if found else 0


def compare(old: RunDir, new: RunDir) -> Iterator[str]:
    """Sentences on what differs in config, versions, data, metrics and weights. Nothing = equal.

    Versions and git state alone are no difference: they are listed only beside one.
    """
    effects = [*_metrics(old, new), *_weights(old, new)]
    before, after = plain(load_config(old.config)), plain(load_config(new.config))
    changed = [d for d in differences(before, after) if d[0].partition(".")[0] not in IGNORED]
    yield from (f"config: {key}: {a} -> {b}" for key, (a, b) in changed)
    if effects:
        here, there = (run.read_json(run.environment) for run in (old, new))
        for part in ("versions", "git", "cpu", "data"):
            yield from (
                f"{part}: {key}: {a} -> {b}"
                for key, (a, b) in differences(here.get(part), there.get(part))
            )
    yield from effects


def _metrics(old: RunDir, new: RunDir) -> list[str]:
    a, b = ([_timeless(row) for row in run.read_metrics()] for run in (old, new))
    lines = [] if len(a) == len(b) else [f"metrics: {len(a)} rows -> {len(b)} rows"]
    for before, after in zip(a, b, strict=False):
        for key, (x, y) in differences(before, after):
            gap = abs(x - y) if isinstance(x, float) and isinstance(y, float) else math.nan
            lines.append(f"metrics: step {before.get('step')} {key}: {x} -> {y} (by {gap:.2g})")
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"metrics: {more} more"] if more > 0 else lines


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "time"}


def _weights(old: RunDir, new: RunDir) -> list[str]:
    a, b = (checkpoint.load(run.checkpoints / "last.pt")["parts"] for run in (old, new))
    lines = []
    for part in {**a, **b}:
        left, right = a.get(part, {}), b.get(part, {})
        if left.keys() != right.keys():
            lines.append(f"weights: {part}: other names or sizes")
            continue
        unequal = [key for key in left if not torch.equal(left[key], right[key])]
        if unequal:
            worst = max(
                float((left[key].double() - right[key].double()).abs().max()) for key in unequal
            )
            lines.append(
                f"weights: {part}: {len(unequal)} of {len(left)} tensors differ, "
                f"by at most {worst:.3g}"
            )
    return lines
