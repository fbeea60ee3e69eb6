"""Zero-shot learning of every pair of MNIST classes from their strokes: 45 pairs, a line each.

    slot python scripts/zero_shot_pairs.py --out pairs.csv

For each pair, two short runs of ESZSL. In the first, two further classes (drawn by seed) are held
out of training: the penalties and the calibration γ are chosen on them. The second trains on all
eight seen classes with these. Nothing is chosen on the two unseen classes, whose training images
are never read. The table of strokes, tlrun/data/sets/digit_strokes.csv, was written before any
training. Pairs that stand in the file already are not run again.
"""

from __future__ import annotations

import argparse
import csv
import logging
import statistics
import tempfile
from itertools import combinations
from pathlib import Path

import torch

from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.experiment.assemble import open_session
from tlrun.experiment.auto import resolve_auto
from tlrun.experiment.session import Session
from tlrun.run_folder.run_dir import RunDir

KEYS = (
    "unseen/accuracy",
    "generalized/seen",
    "generalized/unseen",
    "harmonic_mean",
    "calibrated/seen",
    "calibrated/unseen",
    "calibrated/harmonic_mean",
)


def trained(folder: Path, overrides: list[str]) -> tuple[Session, dict[str, float]]:
    """A session after its training, and its test figures."""
    run_dir = RunDir.create(folder)
    run_dir.checkpoints.mkdir()
    session = open_session(run_dir, plain(resolve_auto(compose(overrides))))
    session.trainer().fit()
    session.load_selected()
    with torch.no_grad():
        return session, session.evaluator.test(session.net)[0]


def one_pair(pair: tuple[str, str], seed: int, words: list[str]) -> dict[str, float | str]:
    """The figures of one pair."""
    common = ["method=eszsl", "data=mnist_attributes", f"seed={seed}", "select=last", *words]
    common += [f"data.unseen=['{pair[0]}','{pair[1]}']", "data.per_class=300", "data.validation=[]"]
    hidden = ["evaluate.target_test=false", "data.draw_validation=2"]
    with tempfile.TemporaryDirectory() as folder:
        session, figures = trained(Path(folder) / "choose", [*common, *hidden])
        gamma, lam = session.method.chosen  # type: ignore[attr-defined]
        fixed = [f"method.gamma={gamma}", f"method.lam={lam}"]
        fixed += [f"data.gamma={figures['calibration/gamma']}"]
        _, final = trained(Path(folder) / "final", [*common, *fixed])
    return {"pair": "".join(pair), **{key: round(final[key], 4) for key in KEYS}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("zero_shot_pairs.csv"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.disable(logging.INFO)
    steps = [f"trainer.steps={args.steps}", f"trainer.eval_every={args.steps}"]
    words = [
        *steps,
        "backbone.width=0.5",
        "trainer.batch_size=64",
        "trainer.threads=1",
        "baseline=false",
    ]
    done = list(csv.DictReader(args.out.open())) if args.out.exists() else []
    known = {row["pair"] for row in done}
    with args.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, ("pair", *KEYS))
        if not done:
            writer.writeheader()
        for number, pair in enumerate(combinations("0123456789", 2)):
            if "".join(pair) not in known:
                row = one_pair(pair, args.seed + number, words)
                writer.writerow(row)
                file.flush()
                print(row, flush=True)
    rows = list(csv.DictReader(args.out.open()))
    for key in KEYS:
        values = [100 * float(row[key]) for row in rows]
        error = statistics.stdev(values) / len(values) ** 0.5
        print(f"{key:<26} {statistics.mean(values):5.1f} ± {error:.1f} (mean ± SE, n={len(rows)})")


if __name__ == "__main__":
    main()
