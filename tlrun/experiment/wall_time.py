"""Where the time of a run went, over all its sittings (a resume is one more).

    total        of the command, from its first line to the report; what a sitting that was killed
                 did after its last checkpoint is not known
    start        imports, data, net, until the training begins
    training     steps
    evaluations  during training
    baseline     models for comparison, whole
    report       plots and page
    other        tests at the end, checkpoints, waiting for other processes

All in seconds. Names and values are wall-clock: nothing compares them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

PARTS = ("start", "training", "evaluations", "baseline", "report")


def wall_seconds(counters: Mapping[str, Any], began: float) -> dict[str, float]:
    """The entry of summary.json once the run is tested, before baseline and report.

    counters: those of the last checkpoint. began: time.time() at the start of this sitting.
    """
    earlier = counters["earlier_seconds" if counters["sitting"] == began else "wall_seconds"]
    total = earlier + time.time() - began
    parts = {
        "start": counters["start_seconds"],
        "training": counters["train_seconds"],
        "evaluations": counters["eval_seconds"],
    }
    return _with_other({**dict.fromkeys(PARTS, 0.0), **parts, "total": total})


def with_part(summary: Mapping[str, Any], part: str, seconds: float) -> dict[str, Any]:
    """The summary with seconds more for a part; as it is where it does not say its times."""
    before = summary.get("wall_seconds")
    if not isinstance(before, Mapping):
        return dict(summary)
    more = {"total": before["total"] + seconds, part: before[part] + seconds}
    return {**summary, "wall_seconds": _with_other({**before, **more})}


def _with_other(seconds: Mapping[str, float]) -> dict[str, float]:
    """With what is left of the total as `other`."""
    total, parts = seconds["total"], {name: seconds[name] for name in PARTS}
    parts["other"] = max(0.0, total - sum(parts.values()))
    return {name: round(value, 2) for name, value in {"total": total, **parts}.items()}
