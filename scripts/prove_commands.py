"""Thousands of bad commands: exit code 0, 1 or 2, one sentence, no traceback, nothing left behind.

    python scripts/prove_commands.py                     # all four parts
    python scripts/prove_commands.py --only cross        # one of them
    python scripts/prove_commands.py --only commands --count 300 --seed 7
    python scripts/prove_commands.py --only commands --start 41 --count 1    # number 42 alone

commands: 3,000 dry runs drawn by the seed, one or two keys of the configuration with a bad value.
cross: a dry run of every method on every bundled data set. damaged: every file of a finished run,
damaged in eight ways, under every verb. saved: 600 bad values in a run's config.yaml, under every
verb. Prints a line per fault, with the command to repeat it, and the counts; exits 1 on any fault.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from hostile import (
    Command,
    Outcome,
    Pool,
    damaged_files,
    every_method_on_every_data,
    finished_run,
    hostile_commands,
    saved_configs,
)

PARTS = {"commands": 3000, "cross": None, "damaged": None, "saved": 600}


def commands_of(part: str, seed: int, folder: Path, pool: Pool) -> Iterable[Command]:
    if part == "commands":
        return hostile_commands(seed)
    if part == "cross":
        found = every_method_on_every_data()
    else:
        run = finished_run(folder, pool)
        found = damaged_files(run) if part == "damaged" else saved_configs(run)
    random.Random(seed).shuffle(found)  # so that the first hundred are of all kinds
    return found


def shown(number: int, outcome: Outcome, whole: bool) -> str:
    """A fault, with what repeats it."""
    told = outcome.said if whole else outcome.sentence[:300]
    left = f"\n    left: {', '.join(outcome.left[:5])}" if outcome.left else ""
    return f"{number}: {outcome.fault}: {outcome.command}\n    {told}{left}"


def prove(part: str, options: argparse.Namespace, pool: Pool) -> int:
    """Run one part; the number of its faults."""
    began = time.monotonic()
    faults: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    slowest: list[tuple[float, str]] = []
    with tempfile.TemporaryDirectory() as name:
        count = PARTS[part] if options.count is None else options.count
        commands = commands_of(part, options.seed, Path(name), pool)
        stop = None if count is None else options.start + count
        asked = list(islice(commands, options.start, stop))
        numbers = {command: i for i, command in enumerate(asked, start=options.start)}
        for done, outcome in enumerate(pool.run_all(asked), start=1):
            ends[f"exit code {outcome.code}"] += 1
            ends["refused with one sentence"] += outcome.refused and not outcome.fault
            if outcome.fault:
                faults[outcome.fault] += 1
                number = numbers[outcome.command]
                print(shown(number, outcome, whole=len(asked) == 1), flush=True)
            slowest = sorted([*slowest, (outcome.seconds, str(outcome.command))])[-3:]
            if done % 500 == 0:
                print(f"{part}: {done} done, {sum(faults.values())} faults", flush=True)
    print(f"\n{part}: {len(asked)} commands in {time.monotonic() - began:.0f} s")
    for what, times in sorted(ends.items()):
        print(f"  {what:<28} {times:>6}")
    for what in sorted({"traceback", "leaves files", *faults}):
        print(f"  fault: {what:<21} {faults[what]:>6}")
    for seconds, command in reversed(slowest):
        print(f"  slow: {seconds:5.1f} s  {command}")
    return sum(faults.values())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="may be given again")
    parser.add_argument("--count", type=int, help="of each part (default: see above)")
    parser.add_argument("--start", type=int, default=0, help="leave out the first ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(argv)
    pool = Pool(options.jobs)
    faults = sum(prove(part, options, pool) for part in options.only or PARTS)
    print("\nno faults" if not faults else f"\n{faults} FAULTS")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
