"""Jobs of Slurm on a cluster without accounting: what became of them is asked of its queue.

submitit asks `sacct`. Without an accounting database that fails, with a warning at every look, and
a job that was cancelled or never requeued would be waited for for ever. Imports no torch.
"""

from __future__ import annotations

import re
import subprocess
import time

COLUMNS = "JobID|State|NodeList"  # what submitit reads of sacct
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")


def ask_the_queue() -> None:
    """Let submitit's jobs of this process ask `squeue` where `sacct` does not answer."""
    if _answer(["sacct", "--noheader", "--jobs=1"]) is not None:
        return
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    class QueueWatcher(SlurmInfoWatcher):
        def update(self) -> None:
            ids = {job.partition("_")[0] for job in self._registered - self._finished}
            lines = _answer(["squeue", "--noheader", "--states=all", "--format=%i|%T|%N"]) or ""
            mine = [line for line in lines.splitlines() if re.split(r"\W|_", line)[0] in ids]
            self._info_dict.update(self.read_info(as_sacct(mine)))
            self._last_status_check = time.time()
            self._finished |= {job for job in self._registered if self.is_done(job, "cache")}

    SlurmJob.watcher = QueueWatcher(delay_s=60)


def as_sacct(lines: list[str]) -> str:
    """Lines "12_0|NODE_FAIL|n1" of squeue in sacct's words: what did not end will be run again."""
    table = [COLUMNS]
    for line in lines:
        job, state, nodes = line.split("|")
        table.append("|".join([job, state if state in ENDED else "RUNNING", nodes]))
    return "\n".join(table)


def _answer(command: list[str]) -> str | None:
    """What a command prints; None where it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
