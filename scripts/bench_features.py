"""A phase on a frozen net with and without kept activations: images a second, and the same figures.

    TLRUN_DATA=... python scripts/bench_features.py [--size 128] [--steps 40] [--freeze backbone]

Two runs on PACS (photo to sketch) from ImageNet's weights, alike but for `trainer.features`. Of
each: images a second in steps, the same with the one pass over the images counted in, and seconds
of an evaluation after the first; then the largest difference of any figure and of any weight.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.engine.hooks import Hooks
from tlrun.experiment.assemble import open_session
from tlrun.experiment.auto import resolve_auto
from tlrun.experiment.session import Session
from tlrun.run_folder.run_dir import RunDir


def main() -> None:
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        runs = {kept: Run(Path(folder) / kept, args, kept) for kept in ("off", "auto")}
    off, auto = runs["off"], runs["auto"]
    for name, run in (("every step", off), ("kept", auto)):
        print(
            f"{name:<10} {run.images_per_second:9.0f} images/s in steps, "
            f"{run.with_pass:8.0f} with the pass, {run.evaluation:7.2f} s an evaluation"
        )
    print(
        f"kept / every step: {auto.images_per_second / off.images_per_second:.1f} in steps, "
        f"{auto.with_pass / off.with_pass:.1f} with the pass over {args.steps} steps, "
        f"{off.evaluation / auto.evaluation:.1f} in an evaluation"
    )
    print(
        f"largest difference: {difference(off.figures, auto.figures):.1e} of a figure, "
        f"{difference(off.weights, auto.weights):.1e} of a weight"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--method", default="source_only")
    parser.add_argument("--freeze", default="backbone", help="a pattern of transfer.freeze")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


class Run:
    """A run of some steps between two evaluations, and what it took."""

    def __init__(self, folder: Path, args: argparse.Namespace, features: str) -> None:
        steps: list[float] = []  # time.perf_counter() around each
        evaluations: list[float] = []  # seconds of all so far
        session = open_for(folder, args, features)
        trainer = session.trainer(
            Hooks(
                before_step=lambda _: steps.append(time.perf_counter()),
                after_step=lambda _: steps.append(time.perf_counter()),
                after_evaluation=lambda _: evaluations.append(trainer.counters.eval_seconds),
            )
        )
        trainer.fit()
        seen = trainer.counters.images_seen
        first = seen // args.steps  # a warm-up
        self.images_per_second = (seen - first) / (steps[-1] - steps[1])
        self.with_pass = seen / trainer.counters.train_seconds
        self.evaluation = evaluations[-1] - evaluations[-2]
        rows = [row for row in session.run_dir.read_metrics() if row["split"] == "eval"]
        self.figures = {
            f"{number} {key}": value
            for number, row in enumerate(rows)
            for key, value in row.items()
            if isinstance(value, float) and key != "time"
        }
        self.weights = {key: value.clone() for key, value in session.net.state_dict().items()}


def open_for(folder: Path, args: argparse.Namespace, features: str) -> Session:
    cfg = compose(
        [
            "data=pacs",
            "data.source=photo",
            "data.target=sketch",
            "data.augment=null",
            f"data.size={args.size}",
            "backbone=efficientnet_lite0",
            "init=pretrained",
            f"method={args.method}",
            f"transfer.freeze=[{args.freeze}]",
            "evaluate.target_test=false",
            f"trainer.steps={args.steps}",
            f"trainer.eval_every={args.steps}",
            f"trainer.threads={args.threads}",
            f"trainer.features={features}",
        ]
    )
    run_dir = RunDir.create(folder)
    run_dir.checkpoints.mkdir()
    return open_session(run_dir, plain(resolve_auto(cfg)))


def difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    return max(
        float((torch.as_tensor(value).double() - torch.as_tensor(theirs[key]).double()).abs().max())
        for key, value in ours.items()
    )


if __name__ == "__main__":
    main()
