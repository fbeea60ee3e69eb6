"""The one bar of a sweep: how many jobs are done and how long the rest will take. Imports no torch.

The process that began the sweep reads the status of the job folders, so it works under every
launcher. On a terminal there is a bar, elsewhere a line for each job that ends.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ValueType
from omegaconf import DictConfig
from tqdm import tqdm

from tlrun.config.overrides import override_list, parse_overrides
from tlrun.evaluate.score import selected_score
from tlrun.messages import plural, say
from tlrun.run_folder.run_dir import RunDir, is_run_dir, runs_in
from tlrun.sweep.own_targets import skipped_jobs
from tlrun.sweep.state import SweepState

QUIET = "TLRUN_QUIET"  # environment: the bar's process speaks for those of its launcher
SECONDS = 1.0  # between two looks at the folders
ENDED = ("completed", "failed")
UNKNOWN = ("", (0, 0))  # the stamp of a job without status.json


@contextmanager
def progress_bar(state: SweepState) -> Iterator[None]:
    """Around a command that may be a sweep: the bar that the sweep opens goes away at its end."""
    try:
        yield
    finally:
        progress, state.progress = state.progress, None
        if progress is not None:
            progress.close()


def start_progress(config: DictConfig) -> SweepProgress:
    """Of the sweep with this config, which has the `hydra` node."""
    launcher = str(config.hydra.launcher.get("_target_"))
    return SweepProgress(
        Path(config.hydra.sweep.dir),
        _jobs_to_run(config),
        elsewhere=not launcher.endswith("BasicLauncher"),
        silent="submitit" in launcher,  # it keeps the output of jobs in files
    )


class SweepProgress:
    """From its making until `close`: a bar, or lines, about the jobs in `folder`.

    total: jobs of the command, None if nobody knows. elsewhere: they run in other processes.
    silent: of those, the launcher keeps the output in files, so failures must be told here.
    """

    def __init__(
        self, folder: Path, total: int | None, *, elsewhere: bool = False, silent: bool = False
    ) -> None:
        self.folder, self.total = folder, total
        on_terminal = sys.stderr.isatty()
        self._tells_failures = silent or (elsewhere and on_terminal)
        self._stamps = {path.name: self._stamp(path) for path in runs_in(folder)}
        self._before = {name for name, (state, _) in self._stamps.items() if state == "completed"}
        self._ended: dict[str, str] = {}  # {job: state}, in the time of this command
        self._began = time.monotonic()
        self._bar = self._open_bar(elsewhere) if on_terminal else None
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._look_again, daemon=True)
        self._thread.start()

    def _open_bar(self, elsewhere: bool) -> tqdm[Any]:
        done = min(len(self._before), self.total or 0)
        bar = tqdm(total=self.total, initial=done, desc="sweep", unit="job", position=0)
        self._screen = logging.StreamHandler(LogAboveBar())
        self._screen.setFormatter(logging.Formatter("%(message)s"))
        logging.getLogger("tlrun").addHandler(self._screen)  # in the place of the run's own
        if elsewhere:
            os.environ[QUIET] = "1"
        return bar

    def close(self) -> None:
        """Tell what has ended by now, and take the bar away."""
        self._stop.set()
        self._thread.join()
        self.look()
        if self._bar is not None:
            logging.getLogger("tlrun").removeHandler(self._screen)
            self._bar.close()
            os.environ.pop(QUIET, None)

    def look(self) -> None:
        """Tell what has ended since the last look."""
        with self._lock, suppress(OSError, ValueError):
            for path in self._not_completed():
                if self._written(path) == self._stamps.get(path.name, UNKNOWN)[1]:
                    continue  # of thousands of jobs few have changed: the others are not read
                self._stamps[path.name] = stamp = self._stamp(path)
                if stamp[0] in ENDED:
                    self._tell_end(RunDir(path), stamp[0])

    def _not_completed(self) -> list[Path]:
        with os.scandir(self.folder) as entries:
            paths = {entry.name: Path(entry.path) for entry in entries}
        states = {name: self._stamps[name][0] for name in paths if name in self._stamps}
        return [
            paths[name]
            for name in sorted(paths)
            if states.get(name) != "completed" and (name in states or is_run_dir(paths[name]))
        ]

    def _look_again(self) -> None:
        while not self._stop.wait(SECONDS):
            self.look()
            if self._bar is not None:
                self._bar.refresh()  # the clock goes on

    def _tell_end(self, run: RunDir, state: str) -> None:
        before = self._ended.get(run.path.name)
        self._ended[run.path.name] = state
        if self._bar is not None:
            self._bar.update(before is None)
            if failed := list(self._ended.values()).count("failed"):
                self._bar.set_postfix(failed=failed)
        if state == "completed" and before != state:
            say(f"{run.path.name}: {result_line(run)}{self._left()}")
        if state == "failed" and self._tells_failures:
            say(f"{run.path.name}: failed: {run.read_status().get('error')}")

    def _left(self) -> str:
        """For lines without a bar: how far it is, and how long the rest takes at this pace."""
        if self._bar is not None or self.total is None:
            return ""
        ended = len(self._before | self._ended.keys())
        rest = self.total - ended
        if rest <= 0:
            return f"; {plural(ended, 'job')} done"
        minutes = (time.monotonic() - self._began) / 60 / len(self._ended) * rest
        return f"; {ended} of {plural(self.total, 'job')} done, about {minutes:.1f} min left"

    @staticmethod
    def _written(path: Path) -> tuple[int, int]:
        """Time in ns and inode of a job's status.json: each new status has another pair."""
        with suppress(OSError):
            about = RunDir(path).status.stat()
            return about.st_mtime_ns, about.st_ino
        return UNKNOWN[1]

    @classmethod
    def _stamp(cls, path: Path) -> tuple[str, tuple[int, int]]:
        """(state, when it was written) of a job; the time first, so that no later state is lost."""
        written = cls._written(path)
        with suppress(OSError):
            return str(RunDir(path).read_status().get("state")), written
        return UNKNOWN


class LogAboveBar:
    """A file whose lines go above the bars, for the log of runs in this process."""

    def write(self, text: str) -> None:
        if text:
            say(text, end="")

    def flush(self) -> None:
        sys.stderr.flush()


def result_line(run: RunDir) -> str:
    """As "information_maximization 2.113, 0.7 min": selected score and time of the job."""
    score = selected_score(run)
    if score is None:
        return "completed"
    summary = run.read_json(run.summary)
    wall = summary.get("wall_seconds")
    seconds = wall.get("total") if isinstance(wall, dict) else summary.get("train_seconds")
    minutes = f", {float(seconds) / 60:.1f} min" if isinstance(seconds, int | float) else ""
    if score.value is not None:
        return f"{score.rule} {score.value:.4g}{minutes}"
    if score.rule == "last":
        return f"completed{minutes}"
    return f"no evaluation passed the guard of {score.rule}{minutes}"


def _jobs_to_run(config: DictConfig) -> int | None:
    """Without those that are skipped."""
    total = count_jobs(config)
    skipped = skipped_jobs(override_list(config.hydra.overrides.task))
    return None if total is None else total - skipped


def count_jobs(config: DictConfig) -> int | None:
    """How many jobs a command has, from its config with the `hydra` node; None with a glob."""
    overrides = [f"{k}={v}" for k, v in (config.hydra.sweeper.get("params") or {}).items()]
    overrides += override_list(config.hydra.overrides.task)
    trials = config.hydra.sweeper.get("trials")
    values: dict[str, int] = {}  # what is typed stands in the place of a preset's axis
    for override in parse_overrides(overrides):
        if trials is not None and override.key_or_group != "seed":
            continue  # a search asks for values of its own, and repeats each with every seed
        if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
            return None
        swept = override.is_discrete_sweep()
        values[override.get_key_element()] = (
            len(list(override.sweep_string_iterator())) if swept else 1
        )
    return math.prod(values.values()) * (trials if isinstance(trials, int) else 1)
