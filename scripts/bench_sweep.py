"""A sweep of short jobs against their training alone, by the clock, two at once.

    python scripts/bench_sweep.py [--jobs 64] [--steps 50] [--rounds 1]

The sweep is `tlrun -m seed=... trainer.steps=50 launcher=joblib` on the bundled digits, with two
processes. Its training alone: the same jobs, in two processes that run at once and have imported
and read all before; of each only the steps are counted, once without and once with the evaluations
that such a job has. Eight jobs in each process, before the sweep, stand for all. The same ratio in
CPU time is told beside it, for a machine that is not quiet.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

import torch
from bench_commands import MODULE, cpu_seconds
from bench_lines import ratios, say

from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.experiment.assemble import open_session
from tlrun.experiment.auto import resolve_auto
from tlrun.run_folder.run_dir import RunDir

PROCESSES = 2
EACH = 8  # jobs of each process that stand for all
WORDS = ("baseline=false", "report=text", "trainer.threads=1")


def sweep(folder: Path, options: argparse.Namespace) -> tuple[float, float]:
    """(seconds by the clock, CPU seconds of all processes) of the command."""
    words = [*WORDS, f"trainer.steps={options.steps}", f"seed=range(0,{options.jobs})"]
    words += ["launcher=joblib", f"launcher.n_jobs={PROCESSES}", f"hydra.sweep.dir={folder}"]
    began = time.perf_counter()
    used = cpu_seconds([*MODULE, "-m", *words], folder.parent)
    return time.perf_counter() - began, used


def training(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of all jobs on PROCESSES cores: "steps" and "with evaluations" by the clock, and
    with ", CPU" of all processes."""
    command = [sys.executable, __file__, "--steps", f"{options.steps}", "--train"]
    running = [
        subprocess.Popen([*command, f"{folder / str(number)}"], stdout=subprocess.PIPE, text=True)
        for number in range(PROCESSES)
    ]
    answers = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError("the training alone failed")
    found = [json.loads(answer.splitlines()[-1]) for answer in answers]
    share = options.jobs / (EACH * PROCESSES) / PROCESSES
    return {key: share * sum(entry[key] for entry in found) for key in found[0]}


def train(folder: Path, steps: int) -> None:
    """In a process of its own: print the seconds of EACH jobs, after one that warms up."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    kinds = ("steps", "with evaluations")
    seconds = {f"{kind}{clock}": 0.0 for kind in kinds for clock in ("", ", CPU")}
    for seed in range(-1, EACH):
        for key in kinds:
            session_dir = RunDir.create(folder / f"{key}{seed}")
            session_dir.checkpoints.mkdir()
            words = [*WORDS, f"seed={seed + 1}", f"trainer.steps={steps}"]
            session = open_session(session_dir, plain(resolve_auto(compose(words))))
            trainer = session.trainer(evaluates=key != "steps")
            used = time.process_time()
            trainer.fit()
            counted = trainer.counters.train_seconds
            counted += trainer.counters.eval_seconds if key != "steps" else 0.0
            if seed >= 0:
                seconds[key] += counted
                seconds[f"{key}, CPU"] += PROCESSES * (time.process_time() - used)
    print(json.dumps(seconds))


def main(words: list[str] | None = None) -> None:
    options = arguments(words)
    if options.train:
        train(options.train, options.steps)
        return
    clock, cpu = list[float](), list[float]()
    alone: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as place:
            for key, seconds in training(Path(place), options).items():
                alone.setdefault(key, []).append(seconds)
            both = sweep(Path(place) / "sweep", options)
            clock.append(both[0])
            cpu.append(both[1])
    name = f"sweep of {options.jobs} runs of {options.steps} steps, {PROCESSES} processes"
    say(f"{name}, by the clock", clock, 1, "s")
    say(f"{name}, all processes", cpu, 1, "CPU-s")
    for kind in ("steps", "with evaluations"):
        say(f"  their training alone, {kind}, by the clock on two cores", alone[kind], 1, "s")
        times = ratios(clock, alone[kind])
        say(f"{name}, times their training alone ({kind})", times, 2, aim="<= 1.3")
        say("  the same in CPU time", ratios(cpu, alone[f"{kind}, CPU"]), 2)


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--train", type=Path, help="used by itself: train alone in this folder")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
