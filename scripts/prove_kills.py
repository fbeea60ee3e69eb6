"""Kill runs, resumes, reproductions and sweeps at random moments; all must end as if never struck.

    python scripts/prove_kills.py [--count 100] [--seed 0] [--only run|resume|reproduce|sweep]

Each trial draws a command, a method and a phase of the work (imports, data, training ...), ends
the whole process group by SIGKILL at a random moment of that phase, and goes on by `tlrun resume`,
or the same command where nothing is there yet. What lies there at the end is compared with a
straight run: rows, summary, weights of every checkpoint, predictions, model file, page, and no file
more or less. Prints a line per trial that differs, with the number that repeats it (`--start`), and
a table; exits 1 on any difference. Bundled data, small nets, one thread.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from straight import differences, kill_group, unequal_jobs

from tlrun.data.sets.digits import enlarged
from tlrun.errors import TlrunError
from tlrun.run_folder.run_dir import RunDir, runs_in

STEPS = 24
SMALL = (
    *(f"trainer.steps={STEPS}", "trainer.batch_size=16", "trainer.threads=1", "trainer.device=cpu"),
    *("trainer.eval_every=8", "trainer.checkpoint_every=4", "trainer.log_every=4"),
    *("backbone.width=0.25", "select.source_floor=0", "select.min_effective_classes=0"),
)
METHODS = {
    "dann": ("method=dann", "baseline=true"),
    "fixmatch_da": ("method=fixmatch_da", "baseline=false"),  # on image files: builds a cache
    "maml": ("method=maml", "data=digits_episodes", "data.val_episodes=4", "data.test_episodes=20"),
    "progressive": ("method=progressive", "data=digits_fours_nines"),
    "sweep": ("-m", "method=source_only,dann", "seed=0,1", "launcher=joblib", "launcher.n_jobs=2"),
}
PHASES_OF_METHOD = {"progressive": 2}  # of STEPS each
KINDS = {  # what is struck -> with which methods
    "run": ("dann", "fixmatch_da", "maml", "progressive"),
    "resume": ("dann", "fixmatch_da", "maml", "progressive"),
    "reproduce": ("dann", "fixmatch_da", "maml", "progressive"),
    "sweep": ("sweep",),
}
PHASES = ("imports", "data", "cache", "training", "evaluation", "baseline", "report")
PHASES_OF_SWEEP = ("imports", "jobs", "leaderboard")
LIMIT = 240.0  # seconds of one command
POLL = 0.02


@dataclass(frozen=True)
class Trial:
    number: int
    kind: str
    method: str
    phase: str
    share: float  # of the phase's time, as the straight run took it

    @property
    def phases(self) -> tuple[str, ...]:
        return PHASES_OF_SWEEP if self.kind == "sweep" else PHASES


@dataclass(frozen=True)
class Straight:
    """An undisturbed command: what it left, and how long each phase took."""

    folder: Path
    seconds: dict[str, float]
    steps: int
    begun: Path | None = None  # a copy that was killed amid training


def trials(seed: int, only: list[str]) -> Any:
    """Without end. Kinds by how many methods they have, then a phase of those the method has."""
    choices = [(kind, method) for kind in only for method in KINDS[kind]]
    number = 0
    while True:
        draw = random.Random(f"{seed} {number}")
        kind, method = draw.choice(choices)
        phases = [
            phase
            for phase in (PHASES_OF_SWEEP if kind == "sweep" else PHASES)
            if (phase != "baseline" or (method == "dann" and kind != "reproduce"))
            and (phase != "cache" or method == "fixmatch_da")
        ]
        yield Trial(number, kind, method, draw.choice(phases), draw.uniform(0.05, 0.95))
        number += 1


# ---- one command, watched -----------------------------------------------------------------------


def watched_phase(place: Path, trial: Trial, process: Any, began: float, steps: int) -> str:
    """In which phase a command is, by the files that it has written."""
    if trial.kind == "sweep":
        jobs = runs_in(place / "sweep") if (place / "sweep").is_dir() else []
        states = [RunDir(job).read_status().get("state") for job in jobs]
        done = states.count("completed") == 4
        return "leaderboard" if done else "jobs" if jobs else "imports"
    run = RunDir(place / ("run_reproduced" if trial.kind == "reproduce" else "run"))
    status = run.read_status()
    if status.get("pid") != process.pid or status.get("state") == "created":
        return "imports"
    if status["state"] == "completed":
        return "report"
    if not _newer(run.label_space, began):
        decoded = place / "cache" / "decoded"
        locks = list(decoded.glob("*.lock")) if decoded.is_dir() else []
        built = all(path.with_suffix("").exists() for path in locks)
        return "cache" if locks and not built else "data"
    if RunDir(run.path / "baseline").config.exists():
        return "baseline"
    try:
        step = RunDir.read_json(run.checkpoints / "last.json")["step"]
    except (OSError, ValueError, KeyError, TlrunError):
        step = 0
    return "evaluation" if step >= steps else "training"


def _newer(path: Path, began: float) -> bool:
    return path.exists() and path.stat().st_mtime >= began


class Bench:
    """The folder of all trials, with one straight run of each command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = write_images(folder / "images")
        self.straight: dict[tuple[str, str], Straight] = {}
        self.lock = threading.Lock()

    def words(self, trial: Trial) -> list[str]:
        """The command that is struck."""
        if trial.kind == "resume":
            return ["resume", "run"]
        if trial.kind == "reproduce":
            return ["reproduce", "run"]
        words = [*METHODS[trial.method], *SMALL]
        if trial.kind == "sweep":
            return [*words, "baseline=false", "hydra.sweep.dir=sweep"]
        if trial.method == "fixmatch_da":
            roots = (
                f"data.{domain}.root={self.images / domain}" for domain in ("source", "target")
            )
            words += ["data=folder", "data.size=28", *roots]
        return [*words, "hydra.run.dir=run"]

    def begin(self, place: Path, words: list[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TLRUN_CACHE": str(place / "cache")}
        with (place / "output.txt").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "tlrun", *words],
                cwd=place,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def obey(self, place: Path, words: list[str]) -> int:
        """To the end; the exit code."""
        process = self.begin(place, words)
        try:
            return process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            kill_group(process)
            return -9

    # ---- straight ---------------------------------------------------------------------------

    def straight_of(self, trial: Trial) -> Straight:
        """The straight command of a trial's kind and method, run once."""
        kind = "run" if trial.kind == "resume" else trial.kind
        with self.lock:
            if (kind, trial.method) not in self.straight:
                self.straight[kind, trial.method] = self._run_straight(kind, trial.method)
            found = self.straight[kind, trial.method]
            if trial.kind == "resume" and found.begun is None:
                begun = self._begin_to_resume(trial, found)
                found = Straight(found.folder, found.seconds, found.steps, begun)
                self.straight[kind, trial.method] = found
            return found

    def _run_straight(self, kind: str, method: str) -> Straight:
        place = self.folder / f"straight_{kind}_{method}"
        trial = Trial(-1, kind, method, "", 0)
        steps = STEPS * PHASES_OF_METHOD.get(method, 1)
        if kind == "reproduce":
            shutil.copytree(self._straight_run(method).folder, place)
        place.mkdir(exist_ok=True)
        began, seen = time.time(), {"imports": time.time()}
        process = self.begin(place, self.words(trial))
        while process.poll() is None:
            phase = watched_phase(place, trial, process, began, steps)
            seen.setdefault(phase, time.time())
            time.sleep(POLL)
        if process.returncode:
            raise SystemExit(f"the straight run failed:\n{(place / 'output.txt').read_text()}")
        moments = [*seen.values(), time.time()]
        seconds = {p: b - a for p, a, b in zip(seen, moments, moments[1:], strict=False)}
        return Straight(place, seconds, steps)

    def _straight_run(self, method: str) -> Straight:
        if ("run", method) not in self.straight:
            self.straight["run", method] = self._run_straight("run", method)
        return self.straight["run", method]

    def _begin_to_resume(self, trial: Trial, straight: Straight) -> Path:
        place = self.folder / f"begun_{trial.method}"
        place.mkdir()
        run = Trial(-1, "run", trial.method, "training", 0.5)
        self.strike(run, place, straight)
        return place

    # ---- struck -----------------------------------------------------------------------------

    def strike(self, trial: Trial, place: Path, straight: Straight) -> str:
        """Begin, kill the group at the trial's moment; the phase that was hit."""
        order = trial.phases.index
        began = time.time()
        process = self.begin(place, self.words(trial))

        def phase() -> str:
            return watched_phase(place, trial, process, began, straight.steps)

        while process.poll() is None and order(phase()) < order(trial.phase):
            time.sleep(POLL)
        moment = time.time() + trial.share * straight.seconds.get(trial.phase, 0.5)
        while process.poll() is None and time.time() < moment:
            time.sleep(POLL)
        ended = process.poll() is not None
        kill_group(process)
        return "after the end" if ended else phase()

    def trial(self, trial: Trial) -> tuple[Trial, str, list[str]]:
        """(trial, phase that was hit, what is unequal in the end)."""
        straight = self.straight_of(trial)
        place = self.folder / f"trial{trial.number}"
        if trial.kind == "resume":
            assert straight.begun is not None
            shutil.copytree(straight.begun, place)
        elif trial.kind == "reproduce":
            shutil.copytree(self._straight_run(trial.method).folder, place)
        else:
            place.mkdir()
        hit = self.strike(trial, place, straight)
        name = {"reproduce": "run_reproduced", "sweep": "sweep"}.get(trial.kind, "run")
        there = (place / name / ("sweep.yaml" if trial.kind == "sweep" else "config.yaml")).exists()
        again = there and (trial.kind != "sweep" or trial.share < 0.5)  # else the same command
        code = self.obey(place, ["resume", name] if again else self.words(trial))
        found = [f"exit code {code}"] if code else []
        if trial.kind == "sweep":
            for job, lines in unequal_jobs(place / name, straight.folder / name).items():
                found += [f"{job}: {line}" for line in lines]
        elif (place / name).is_dir():
            found += differences(place / name, straight.folder / name)
        found += [
            f"stray: {path.name}"
            for path in [*place.iterdir(), *place.glob("cache/**/*.part")]
            if path.name not in (name, "run", "cache", "output.txt")
        ]
        if not found:
            shutil.rmtree(place)
        return trial, hit, found


def write_images(folder: Path) -> Path:
    """Two folders of large digits, upright and inverted: decoding them takes a second."""
    images, labels = enlarged()
    for domain, start in (("source", 0), ("target", 150)):
        for i in range(start, start + 150):
            if labels[i] > 4:
                continue
            digit = images[i, 0] if domain == "source" else 255 - images[i, 0]
            place = folder / domain / str(labels[i])
            place.mkdir(parents=True, exist_ok=True)
            large = Image.fromarray(np.asarray(digit)).resize((500, 500))
            large.save(place / f"{i}.png")
    return folder


def table(ends: Counter[tuple[str, str, str, bool]]) -> str:
    lines = [f"{'struck':<10} {'method':<12} {'phase hit':<14} {'equal':>6} {'unequal':>8}"]
    for kind, method, phase in sorted({key[:3] for key in ends}):
        good, bad = (ends[kind, method, phase, equal] for equal in (True, False))
        lines.append(f"{kind:<10} {method:<12} {phase:<14} {good:>6} {bad:>8}")
    good, bad = (sum(n for key, n in ends.items() if key[3] is equal) for equal in (True, False))
    return "\n".join([*lines, f"{'all':<38} {good:>6} {bad:>8}"])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--start", type=int, default=0, help="leave out the first trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS, action="append", help="may be given again")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="a new folder, where unequal trials stay")
    options = parser.parse_args(argv)
    began = time.monotonic()
    ends: Counter[tuple[str, str, str, bool]] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = (options.keep or Path(name)).absolute()
        bench = Bench(folder)
        drawn = trials(options.seed, options.only or list(KINDS))
        asked = [next(drawn) for _ in range(options.start + options.count)][options.start :]
        with ThreadPoolExecutor(options.jobs) as pool:
            for trial, hit, unequal in pool.map(bench.trial, asked):
                ends[trial.kind, trial.method, hit, not unequal] += 1
                if unequal:
                    print(f"{trial.number}: {trial.kind} of {trial.method}, killed in {hit}:")
                    print("\n".join(f"    {line}" for line in unequal[:8]), flush=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(table(ends))
    print(
        f"{time.monotonic() - began:.0f} s, {(used.ru_utime + used.ru_stime) / 60:.1f} CPU minutes"
    )
    return 1 if any(not key[3] for key in ends) else 0


if __name__ == "__main__":
    sys.exit(main())
