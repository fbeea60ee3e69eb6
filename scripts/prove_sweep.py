"""Sweeps under fire: kill them, run them twice at once, and time them under joblib.

    python scripts/prove_sweep.py kill      # 24 jobs, `kill -9` of all processes three times
    python scripts/prove_sweep.py twice     # two processes on one folder, two new sweeps at once
    python scripts/prove_sweep.py joblib    # 8 jobs: two at a time against one after the other

Each prints what it found and exits 1 where a claim does not hold. Bundled data, small nets.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from straight import kill_group, unequal_jobs

from tlrun.run_folder.run_dir import RunDir, runs_in

SMALL = (
    *("trainer.batch_size=16", "backbone.width=0.25", "data=digits_digitsm", "trainer.threads=1"),
    *("trainer.eval_every=20", "trainer.checkpoint_every=5", "trainer.log_every=10"),
)


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "tlrun", "-m", *SMALL, *words, f"hydra.sweep.dir={folder}"]


def run(folder: Path, *words: str) -> None:
    done = subprocess.run(command(folder, *words), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode}: {done.stderr[-2000:]}")


def completed(folder: Path) -> dict[str, int]:
    """{job: when its summary was written} of the finished ones."""
    if not folder.is_dir():
        return {}
    return {
        path.name: RunDir(path).summary.stat().st_mtime_ns
        for path in runs_in(folder)
        if RunDir(path).read_status().get("state") == "completed"
    }


def begun(path: Path) -> int:
    """How often a job began from step 0, by its log."""
    return RunDir(path).log.read_text(encoding="utf-8").count("train step 0:")


def kill(folder: Path, steps: int, launcher: list[str], seed: int) -> bool:
    """24 jobs; three times all processes end by SIGKILL, at moments drawn at random."""
    words = ["method=source_only,dann,deep_coral", "seed=range(8)", f"trainer.steps={steps}"]
    straight, struck = folder / "straight", folder / "struck"
    began = time.monotonic()
    run(straight, *words, *launcher)
    whole = time.monotonic() - began
    print(f"undisturbed: {len(completed(straight))} jobs in {whole:.0f} s", flush=True)
    draw = random.Random(seed)
    touched: list[str] = []
    for number in range(3):
        before = completed(struck)
        seconds = draw.uniform(0.1, 0.3) * whole
        process = subprocess.Popen(
            command(struck, *words, *launcher),
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own: with all that it starts
        )
        time.sleep(seconds)
        kill_group(process)
        after = completed(struck)
        touched += [name for name, at in before.items() if after.get(name) != at]
        print(f"kill {number + 1} after {seconds:.0f} s: {len(after)} jobs done", flush=True)
    before = completed(struck)
    run(struck, *words, *launcher)
    after = completed(struck)
    touched += [name for name, at in before.items() if after.get(name) != at]
    unequal = unequal_jobs(struck, straight)
    # a job that was struck before its first checkpoint begins anew, with its log continued
    often = {path.name: begun(path) for path in runs_in(struck)}
    anew = {name: count for name, count in often.items() if count > 1}
    print(
        f"finished: {len(after)} of 24; finished jobs that were run or written again: "
        f"{len(touched)}; unequal to the undisturbed sweep: {len(unequal)}; begun from step 0 more "
        f"than once (killed before a checkpoint): {anew or 'none'}"
    )
    return len(after) == 24 and not touched and not unequal


def twice(folder: Path, steps: int) -> bool:
    """Two processes in one folder share the jobs; two `sweep.new` of one second share nothing."""
    words = ["method=source_only,dann", "seed=range(3)", f"trainer.steps={steps}"]
    straight, shared = folder / "straight", folder / "shared"
    run(straight, *words)
    both = [subprocess.Popen(command(shared, *words), stderr=subprocess.DEVNULL) for _ in range(2)]
    codes = [process.wait() for process in both]
    pids = [RunDir(path).read_status()["pid"] for path in runs_in(shared)]
    unequal = unequal_jobs(shared, straight)
    once = all(begun(path) == 1 for path in runs_in(shared))
    print(
        f"one folder: exit codes {codes}, jobs by process {[pids.count(p.pid) for p in both]}, "
        f"each begun once: {once}, unequal: {len(unequal)}"
    )
    fresh = [*words, "sweep.new=true"]
    both = [
        subprocess.Popen(command(folder / "new", *fresh), stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    others = [process.wait() for process in both]
    apart = [unequal_jobs(folder / name, straight) for name in ("new", "new_2")]
    print(f"two new sweeps: exit codes {others}, unequal: {[len(found) for found in apart]}")
    good = codes == others == [0, 0] and once and not unequal and not any(apart)
    return good and len(completed(shared)) == 6


def joblib(folder: Path, steps: int, rounds: int) -> bool:
    """8 runs, in turns: basic with all cores, joblib with two one-thread jobs."""
    words = ["method=dann", "seed=range(8)", f"trainer.steps={steps}", "trainer.threads=auto"]
    kinds = {"basic": [], "joblib": ["launcher=joblib", "launcher.n_jobs=2"]}
    ratios = []
    for number in range(rounds):
        seconds = {}
        for kind, launcher in kinds.items():
            began = time.monotonic()
            run(folder / f"{kind}{number}", *words, *launcher)
            seconds[kind] = time.monotonic() - began
        ratios.append(seconds["basic"] / seconds["joblib"])
        figures = ", ".join(f"{kind} {value:.0f} s" for kind, value in seconds.items())
        load = os.getloadavg()[0]
        print(f"{figures}: {ratios[-1]:.2f} times (load {load:.1f})", flush=True)
    middle = sorted(ratios)[len(ratios) // 2]
    print(f"joblib's two one-thread jobs are {middle:.2f} times as fast (at least 1.3 claimed)")
    return middle >= 1.3


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("kill", "twice", "joblib"))
    parser.add_argument("--steps", type=int, help="of a job; 40, for joblib 300")
    parser.add_argument("--rounds", type=int, default=1, help="of joblib against basic")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--launcher", nargs="*", default=[], help="of kill: launcher=joblib ...")
    arguments = parser.parse_args()
    os.environ.pop("OMP_NUM_THREADS", None)  # the launchers divide the cores themselves
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.what == "kill":
            good = kill(folder, arguments.steps or 40, arguments.launcher, arguments.seed)
        elif arguments.what == "twice":
            good = twice(folder, arguments.steps or 40)
        else:
            good = joblib(folder, arguments.steps or 300, arguments.rounds)
    print("holds" if good else "DOES NOT HOLD")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
