"""What differs between two completed runs: settings, surroundings, figures, weights.

On the same machine equal means bit for bit. Another processor, number of threads, torch or device
sums in another order, and training carries that on: there the closing figures are compared within a
tolerance (docs/decisions.md, "The tolerance of another machine").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tlrun.config.build import plain
from tlrun.config.hashes import NOT_IN_HASH, PATH_KEYS, config_hash
from tlrun.config.saved import load_config
from tlrun.engine import checkpoint
from tlrun.experiment.resume import FREE, differences
from tlrun.run_folder.run_dir import RunDir

TOLERANCE = 0.03
FIRST = 1e-3  # of losses before training, where nothing has carried a rounding on; bf16: 1e-2
SHOWN = 10  # differences of one kind that are printed
HARMLESS = (*FREE, "trainer.threads", "trainer.device")  # keys told as a note
MACHINE = ("cpu.model", "cpu.capability", "threads", "device", "versions.torch")


@dataclass
class Comparison:
    """Sentences, by what they mean.

    settings: keys and data that make it another experiment. notes: code, versions, machine, and
    keys that do not. machine: why bits may differ. unequal: figures and weights, bit by bit.
    beyond: closing figures that differ by more than `tolerance` (None = only equal bits will do).
    """

    settings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    machine: list[str] = field(default_factory=list)
    unequal: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)
    tolerance: float | None = None

    @property
    def exact(self) -> bool:
        return not (self.settings or self.unequal)

    @property
    def equal(self) -> bool:
        """Whether the run was reproduced, exactly or within the tolerance."""
        return self.exact or (self.tolerance is not None and not self.settings and not self.beyond)

    def lines(self) -> list[str]:
        """All there is to say, the verdict last."""
        notes = [f"note: {line}" for line in self.notes]
        return [*notes, *self.settings, *(self.shown() if not self.exact else ()), self.verdict()]

    def shown(self) -> list[str]:
        return self.unequal if self.tolerance is None else self.beyond

    def verdict(self) -> str:
        if self.exact:
            return "reproduced: metrics and weights are equal, bit for bit"
        if not self.equal:
            return "differs"
        why = (
            f"of another machine ({'; '.join(self.machine)})" if self.machine else "that was given"
        )
        return f"reproduced within the tolerance {why}: closing figures are equal to " + (
            f"{self.tolerance:g}, weights are not compared"
        )


def compare_runs(old: RunDir, new: RunDir, tolerance: float | None = None) -> Comparison:
    """tolerance: None = equal bits on the same machine, TOLERANCE on another one."""
    comparison = Comparison()
    _compare_configs(old, new, comparison)
    _compare_surroundings(surroundings(old), surroundings(new), comparison)
    by_machine = tolerance is None and bool(comparison.machine)
    comparison.tolerance = TOLERANCE if by_machine else tolerance
    comparison.unequal = [*_metrics(old, new), *_figures(old, new), *_weights(old, new)]
    if comparison.unequal and comparison.tolerance is not None:
        far = [*_beginning(old, new), *_beyond(old, new, comparison.tolerance)]
        comparison.beyond = _few("figures", far)
    return comparison


def _compare_configs(old: RunDir, new: RunDir, comparison: Comparison) -> None:
    for key, (a, b) in differences(*(plain(load_config(run.config)) for run in (old, new))):
        top, leaf = key.partition(".")[0], key.rpartition(".")[2]
        if top in NOT_IN_HASH:
            continue
        mild = key in HARMLESS or top in HARMLESS or leaf in PATH_KEYS
        (comparison.notes if mild else comparison.settings).append(f"config: {key}: {a} -> {b}")
    trained = old.read_summary().get("config_hash")
    if trained not in (None, config_hash(load_config(old.config))):
        comparison.notes.append("config.yaml is not the one that summary.json is of: edited since?")


def _compare_surroundings(
    here: Mapping[str, Any], there: Mapping[str, Any], comparison: Comparison
) -> None:
    comparison.notes += notes(here, there)
    comparison.settings += _few("data", list(_data(here.get("data"), there.get("data"))))
    for key in MACHINE:
        a, b = _at(here, key), _at(there, key)
        if a != b and None not in (a, b):  # a run of an older tlrun does not tell all
            comparison.machine.append(f"{key}: {a} -> {b}")


# ---- surroundings ---------------------------------------------------------------------------


def surroundings(run: RunDir) -> dict[str, Any]:
    """environment.json; {} if there is none. The threads are those of the configuration."""
    environment = run.read_json(run.environment) if run.environment.is_file() else {}
    threads = plain(load_config(run.config))["trainer"]["threads"]
    return {**environment, "threads": environment.get("threads") if threads == "auto" else threads}


def notes(here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[str]:
    """What is other around the run: no difference of the result by itself, but maybe the reason."""
    complete = "code" in here  # else of an older tlrun, which did not write down all

    def told(key: str, before: Any) -> bool:
        return key != "memory_gb" and (complete or before is not None)

    for part in ("versions", "cpu", "device", "threads", "code", "git", "init"):
        a, b = here.get(part), there.get(part)
        if part == "git":
            yield from _git(a or {}, b or {})
        elif a is None or b is None:
            if a != b and part in ("code", "versions"):
                yield f"{part}: the run does not tell, it was trained with an older tlrun"
        else:
            yield from _few(
                part, [_line(part, k, v) for k, v in differences(a, b) if told(k, v[0])]
            )
    for earlier in here.get("earlier", ()):
        changed = {key: value for key, value in earlier.items() if key != "git"}
        now = {key: here.get(key) for key in changed}
        lines = [f"{key}: {a} -> {b}" for key, (a, b) in differences(changed, now)]
        what = "; ".join(_few("more", lines)) or "another commit"
        yield f"the run was trained in parts: before it was resumed, with {what}"


def _data(here: Any, there: Any) -> Iterator[str]:
    """By checksum and count: where the data lie and what is remarked on them is no other data."""
    if here is None or there is None:
        return
    for key, values in differences(here, there):
        if key.endswith(("checksum", "count")) or "count_by_class" in key:
            yield _line("data", key, values)


def _line(part: str, key: str, values: tuple[Any, Any]) -> str:
    a, b = ("none" if value is None else value for value in values)
    key = key.partition(".")[2] if part == "code" else key  # without "tlrun." or "own."
    return f"{part}: {key}: {a} -> {b}" if key else f"{part}: {a} -> {b}"


def _git(here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[str]:
    """Of tlrun's repository, and of the working folder's where that is another one."""
    lines = set()
    for name in ("tlrun", "working_folder"):
        a, b = here.get(name) or {}, there.get(name) or {}
        if (line := _commits(a, b)) and line not in lines:
            lines.add(line)
            yield f"git: {name}: {line}"


def _commits(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """'' = the same commit without changes, or no repository on either side."""
    if [a.get("sha"), a.get("dirty")] != [b.get("sha"), b.get("dirty")]:
        return " -> ".join(
            f"commit {state['sha'][:12]}{' with uncommitted changes' if state['dirty'] else ''}"
            if state
            else "no repository"
            for state in (a, b)
        )
    if not a.get("dirty"):
        return ""
    if a.keys() == b.keys() and a.get("diff") != b.get("diff"):
        return "the uncommitted changes are others than before"
    return f"both of commit {str(a['sha'])[:12]} with uncommitted changes"


def _at(tree: Mapping[str, Any], key: str) -> Any:
    node: Any = tree
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


# ---- bit by bit -----------------------------------------------------------------------------


def _metrics(old: RunDir, new: RunDir) -> list[str]:
    a, b = ([_timeless(row) for row in run.read_metrics()] for run in (old, new))
    lines = [] if len(a) == len(b) else [f"metrics: {len(a)} rows -> {len(b)} rows"]
    for before, after in zip(a, b, strict=False):
        for key, (x, y) in differences(before, after):
            gap = abs(x - y) if isinstance(x, float) and isinstance(y, float) else math.nan
            lines.append(f"metrics: step {before.get('step')} {key}: {x} -> {y} (by {gap:.2g})")
    return _few("metrics", lines)


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "time"}


def _figures(old: RunDir, new: RunDir) -> list[str]:
    """Of the summary: what the tests gave."""
    a, b = (_tested(run) for run in (old, new))
    return _few("summary", [f"summary: {key}: {x} -> {y}" for key, (x, y) in differences(a, b)])


def _tested(run: RunDir) -> dict[str, Any]:
    summary = run.read_summary()
    return {key: summary.get(key) for key in ("selected", "last", "oracle")}


def _weights(old: RunDir, new: RunDir) -> list[str]:
    """Of every part, and what the method keeps beside the net."""
    a, b = (checkpoint.load(run.checkpoints / "last.pt") for run in (old, new))
    states = [({**x["parts"], "of the method": x["method"]}) for x in (a, b)]
    return [line for part in {**states[0], **states[1]} for line in _part(part, *states)]


def _part(part: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    left, right = (dict(_tensors(state.get(part, {}))) for state in (a, b))
    if left.keys() != right.keys() or any(left[k].shape != right[k].shape for k in left):
        yield f"weights: {part}: other names or sizes"
        return
    unequal = [key for key in left if not torch.equal(left[key], right[key])]
    if unequal:
        worst = max(float((left[k].double() - right[k].double()).abs().max()) for k in unequal)
        yield (
            f"weights: {part}: {len(unequal)} of {len(left)} tensors differ, by at most {worst:.3g}"
        )


def _tensors(state: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors and numbers of a nested state by their dotted name."""
    if isinstance(state, Tensor):
        yield prefix, state
    elif isinstance(state, bool | int | float):
        yield prefix, torch.tensor(state)
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from _tensors(value, f"{prefix}.{key}")
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from _tensors(value, f"{prefix}.{index}")


# ---- within a tolerance ---------------------------------------------------------------------


def _beyond(old: RunDir, new: RunDir, tolerance: float) -> Iterator[str]:
    """Closing figures a, b with |a − b| > tolerance · max(1, |a|); shares count absolutely."""
    a, b = closing_figures(old), closing_figures(new)
    for key in {**a, **b}:
        x, y = a.get(key), b.get(key)
        if x is None or y is None:
            yield f"figures: {key}: {x} -> {y}"
        elif not abs(x - y) <= tolerance * max(1.0, abs(x)):
            yield f"figures: {key}: {x:.4g} -> {y:.4g} (by {abs(x - y):.2g})"


def _beginning(old: RunDir, new: RunDir) -> Iterator[str]:
    """Losses of the first evaluation: the same data and initial weights give nearly the same."""
    a, b = (next((r for r in run.read_metrics() if r["split"] == "eval"), {}) for run in (old, new))
    exact = plain(load_config(old.config))["trainer"]["precision"] == "fp32"
    limit = FIRST if exact else 10 * FIRST
    for key in a.keys() & b.keys():
        x, y = a[key], b[key]
        if not key.endswith("_val/loss") or None in (x, y):
            continue
        if not abs(x - y) <= limit * max(1.0, abs(x)):
            yield f"figures: before training, {key}: {x:.6g} -> {y:.6g} (by {abs(x - y):.2g})"


def closing_figures(run: RunDir) -> dict[str, float]:
    """Test figures of the selected and the last weights, and the last evaluation's own."""
    figures = {
        f"{which} {key}": value
        for which in ("selected", "last")
        for key, value in (_tested(run)[which] or {}).items()
        if key != "step"
    }
    rows = [row for row in run.read_metrics() if row.get("split") == "eval"]
    last = rows[-1] if rows else {}
    figures |= {
        f"last {k}": v
        for k, v in last.items()
        if k.endswith(("_val/accuracy", "_val/iou", "_val/loss"))
    }
    return {key: float(v) for key, v in figures.items() if isinstance(v, int | float)}


def _few(kind: str, lines: Sequence[str]) -> list[str]:
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"{kind}: {more} more"] if more > 0 else list(lines)
