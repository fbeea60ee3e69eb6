"""Kill runs at random moments, resume them, and compare with a straight run, bit by bit.

    python scripts/prove_resume.py [--kills 5] [--steps 400]

For DANN, for two training processes, and for SIGTERM. Prints a line per trial and exits 1 on any
difference (see straight.py). prove_kills.py strikes other moments and methods.
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

from straight import differences

from tlrun.engine import checkpoint


def command(folder: Path, steps: int, *overrides: str) -> list[str]:
    return [
        *(sys.executable, "-m", "tlrun", f"hydra.run.dir={folder}"),
        *(f"trainer.steps={steps}", "trainer.batch_size=32", "trainer.eval_every=50"),
        *("trainer.checkpoint_every=20", "trainer.log_every=15", "baseline=false", *overrides),
    ]


def run(arguments: list[str]) -> int:
    return subprocess.run(arguments, capture_output=True, check=False).returncode


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
        straight: dict[tuple[str, ...], tuple[float, Path]] = {}
        for title, number, count, overrides in cases:
            if overrides not in straight:
                folder = Path(name) / f"straight{len(straight)}"
                began = time.monotonic()
                if run(command(folder, options.steps, *overrides)):
                    raise SystemExit(f"the straight run failed, see {folder}")
                straight[overrides] = (time.monotonic() - began, folder)
            seconds, undisturbed = straight[overrides]
            for i in range(count):
                folder = Path(name) / f"case{len(list(Path(name).iterdir()))}"
                happened = trial(
                    folder, options.steps, chance.uniform(0.2, 0.9) * seconds, number, *overrides
                )
                unequal = differences(folder, undisturbed)
                failures += bool(unequal)
                verdict = f"DIFFERENT: {'; '.join(unequal)}" if unequal else "equal"
                print(f"{title} {i + 1}: {happened}: {verdict}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
