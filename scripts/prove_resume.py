"""Kill runs at random moments, resume them, and compare with a straight run, bit by bit.

    python scripts/prove_resume.py [--kills 5] [--steps 400]

For DANN, for two training processes, and for SIGTERM. Prints a line per trial and exits 1 on any
difference in the weights or in metrics.jsonl (but for "time").
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from tlrun.engine import checkpoint
from tlrun.run_dir import RunDir


def command(folder: Path, steps: int, *overrides: str) -> list[str]:
    return [
        *(sys.executable, "-m", "tlrun", f"hydra.run.dir={folder}"),
        *(f"trainer.steps={steps}", "trainer.batch_size=32", "trainer.eval_every=50"),
        *("trainer.checkpoint_every=20", "trainer.log_every=15", "baseline=false", *overrides),
    ]


def run(arguments: list[str]) -> int:
    return subprocess.run(arguments, capture_output=True, check=False).returncode


def state(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict]]:
    run_dir = RunDir(folder)
    parts = checkpoint.load(run_dir.checkpoints / "last.pt")["parts"]
    weights = {f"{part}.{key}": v for part, found in parts.items() for key, v in found.items()}
    return weights, [{**row, "time": 0} for row in run_dir.read_metrics()]


def trial(folder: Path, steps: int, seconds: float, number: int, *overrides: str) -> str:
    """Start, strike after `seconds` (again while it is not finished), resume; what happened."""
    process = subprocess.Popen(command(folder, steps, *overrides), stderr=subprocess.DEVNULL)
    while not (folder / "config.yaml").exists():  # before that there is nothing to resume
        if process.poll() is not None:
            raise SystemExit(f"the run ended before it wrote its config (exit {process.poll()})")
        time.sleep(0.05)
    time.sleep(seconds)
    process.send_signal(number)
    code = process.wait()
    found = (
        checkpoint.load_last(folder / "checkpoints") if (folder / "checkpoints").exists() else None
    )
    at = found["step"] if found else 0
    again = run([sys.executable, "-m", "tlrun", "resume", str(folder)])
    return f"struck after {seconds:.1f} s (exit {code}), resumed from step {at} (exit {again})"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args()
    chance = random.Random(0)
    failures = 0
    cases = [
        ("kill -9", signal.SIGKILL, options.kills, ()),
        ("SIGTERM", signal.SIGTERM, 2, ()),
        ("kill -9, two processes", signal.SIGKILL, 2, ("trainer.devices=2",)),
        ("SIGTERM, two processes", signal.SIGTERM, 1, ("trainer.devices=2",)),
    ]
    with tempfile.TemporaryDirectory() as name:
        straight: dict[tuple[str, ...], tuple[float, tuple]] = {}
        for title, number, count, overrides in cases:
            if overrides not in straight:
                folder = Path(name) / f"straight{len(straight)}"
                began = time.monotonic()
                if run(command(folder, options.steps, *overrides)):
                    raise SystemExit(f"the straight run failed, see {folder}")
                straight[overrides] = (time.monotonic() - began, state(folder))
            seconds, (weights, rows) = straight[overrides]
            for i in range(count):
                folder = Path(name) / f"case{len(list(Path(name).iterdir()))}"
                happened = trial(
                    folder, options.steps, chance.uniform(0.2, 0.9) * seconds, number, *overrides
                )
                ours, our_rows = state(folder)
                same = ours.keys() == weights.keys() and all(
                    torch.equal(ours[key], weights[key]) for key in weights
                )
                verdict = "equal" if same and rows == our_rows else "DIFFERENT"
                failures += verdict != "equal"
                print(f"{title} {i + 1}: {happened}: weights and metrics {verdict}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
