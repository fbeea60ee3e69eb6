"""What a run that was disturbed must share with a straight one: everything but the time it took."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from tlrun.engine import checkpoint
from tlrun.run_folder.run_dir import RunDir, runs_in

# Files that must be equal byte for byte.
SAME = (
    *("config.yaml", "label_space.json", "predictions.csv", "features.npz", "model.safetensors"),
    *("overrides.yaml", "pictures.json", "tables.json", "transfer.json"),
)
OF_TIME = ("seconds", "per_second", "memory_mb")  # ends of keys of a summary
LOCKS = ".lock"


def timeless(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if not key.endswith(OF_TIME)}


def rows(run: RunDir) -> list[dict[str, Any]]:
    return [{**row, "time": 0} for row in run.read_metrics()]


def weights(path: Path) -> dict[str, torch.Tensor]:
    parts = checkpoint.load(path)["parts"]
    return {f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()}


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCKS
    }


def differences(folder: Path, straight: Path) -> list[str]:
    """What of a run is other than in the straight one, models beside it included; [] = nothing."""
    mine, theirs = files(folder), files(straight)
    found = [f"missing: {name}" for name in sorted(theirs - mine)]
    found += [f"stray: {name}" for name in sorted(mine - theirs)]
    return found + [name for name in sorted(mine & theirs) if not _equal(name, folder, straight)]


def _equal(name: str, folder: Path, straight: Path) -> bool:
    a, b = folder / name, straight / name
    if a.name in SAME:
        return a.read_bytes() == b.read_bytes()
    if a.name == "metrics.jsonl":
        return rows(RunDir(a.parent)) == rows(RunDir(b.parent))
    if a.name == "summary.json":
        return timeless(RunDir.read_json(a)) == timeless(RunDir.read_json(b))
    if a.suffix == ".pt":
        left, right = weights(a), weights(b)
        return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
    if a.suffix == ".html":
        return a.read_text("utf-8").rstrip().endswith("</html>")
    return True


def unequal_jobs(folder: Path, straight: Path) -> dict[str, list[str]]:
    """{job: its differences} of two sweeps; under "" those of the files beside the jobs."""
    names = {path.name for path in (*runs_in(folder), *runs_in(straight))}
    found = {name: differences(folder / name, straight / name) for name in sorted(names)}
    mine, theirs = (
        {name for name in files(sweep) if Path(name).parts[0] not in names}
        for sweep in (folder, straight)
    )
    found[""] = sorted(
        [f"missing: {x}" for x in theirs - mine] + [f"stray: {x}" for x in mine - theirs]
    )
    return {name: lines for name, lines in found.items() if lines}


def kill_group(process: subprocess.Popen[Any]) -> None:
    """SIGKILL to a process started with `start_new_session`, and to all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while True:  # until the last of them is gone
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
