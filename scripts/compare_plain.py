"""The same net on the same photographs by tlrun and by a plain script: accuracy and wall time.

    python scripts/compare_plain.py FOLDER [--seeds 3] [--steps 120] [--size 128]

FOLDER holds a folder of photographs per class. For every seed 30 % of each class are set aside for
the test; both sides read the same two lists, one after the other, in turn, each in a process of its
own. The wall time is that of the whole command. Needs the extras imagenet and timm.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPTS = Path(__file__).parent
AUGMENT = "{random_resized_crop: 0.5, flip: 0.5}"


def write_lists(folder: Path, out: Path, seed: int) -> tuple[Path, Path]:
    """`path label` lines of 70 % and 30 % of each class, drawn by the seed."""
    draw = random.Random(seed)
    parts: tuple[list[str], list[str]] = ([], [])
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        lines = [f"{file.resolve()} {place.name}" for file in sorted(place.iterdir())]
        draw.shuffle(lines)
        cut = round(0.3 * len(lines))
        parts[1].extend(lines[:cut])
        parts[0].extend(lines[cut:])
    files = out / f"train{seed}.txt", out / f"test{seed}.txt"
    for file, lines in zip(files, parts, strict=True):
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


def by_plain(lists: tuple[Path, Path], args: argparse.Namespace, seed: int) -> tuple[float, float]:
    """(accuracy in per cent, seconds)."""
    command = [sys.executable, str(SCRIPTS / "plain_finetune.py"), *map(str, lists)]
    command += [f"--size={args.size}", f"--steps={args.steps}", f"--seed={seed}"]
    printed, seconds = timed(command)
    found = re.search(r"accuracy ([\d.]+)", printed)
    assert found, printed
    return float(found[1]), seconds


def by_tlrun(
    lists: tuple[Path, Path], args: argparse.Namespace, seed: int, out: Path
) -> tuple[float, float]:
    """(accuracy in per cent, seconds)."""
    run = out / f"run{seed}"
    command = [sys.executable, "-m", "tlrun", "method=finetune", "data=folder", "init=pretrained"]
    command += [f"data.target.list={lists[0]}", f"data.target.test.list={lists[1]}"]
    command += ["backbone=efficientnet_lite0", f"data.size={args.size}", "target_labels=all"]
    command += [f"data.augment.target={AUGMENT}", "data.target.val_fraction=0", "select=last"]
    command += ["optimizer=sgd", "optimizer.lr=0.01", "optimizer.weight_decay=5e-4"]
    command += [f"trainer.steps={args.steps}", "trainer.batch_size=32", f"seed={seed}"]
    command += [f"trainer.eval_every={args.steps}", f"hydra.run.dir={run}"]
    _, seconds = timed(command)
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return 100 * float(summary["selected"]["target_test/accuracy"]), seconds


def timed(command: list[str]) -> tuple[str, float]:
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--size", type=int, default=128)
    args = parser.parse_args()
    rows: dict[str, list[tuple[float, float]]] = {"plain": [], "tlrun": []}
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        for seed in range(args.seeds):
            lists = write_lists(args.folder, out, seed)
            rows["plain"].append(by_plain(lists, args, seed))
            rows["tlrun"].append(by_tlrun(lists, args, seed, out))
            print(f"seed {seed}:", {name: row[-1] for name, row in rows.items()}, flush=True)
    for name, row in rows.items():
        accuracy, seconds = zip(*row, strict=True)
        spread = statistics.stdev(accuracy) if len(accuracy) > 1 else 0.0
        print(
            f"{name:<6} accuracy {statistics.mean(accuracy):.1f} ± {spread:.1f}, "
            f"wall time {statistics.median(seconds):.1f} s (median of {len(seconds)})"
        )
    ratio = statistics.median(
        t[1] / p[1] for t, p in zip(rows["tlrun"], rows["plain"], strict=True)
    )
    print(f"tlrun takes {ratio:.2f} of the plain script's time (median over seeds)")


if __name__ == "__main__":
    main()
