"""The trainer against a bare one: same net, batches and precision, alternating in a process.

    TLRUN_DATA=... python scripts/bench_loop.py [--data mnist_mnistm] [--steps 60] [--rounds 6]

The bare loop lives in `bare_loop.py`, imports nothing of tlrun and is under 60 lines. Printed:
steps a second of each (median over the rounds), their ratio, and bf16 against fp32 for both.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path

import torch
from bare_loop import train as bare_train

from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.data.pipeline.streams import Stream
from tlrun.experiment.assemble import open_session
from tlrun.experiment.auto import resolve_auto
from tlrun.experiment.session import Session
from tlrun.run_folder.run_dir import RunDir


def runner_session(folder: Path, data: str, steps: int, precision: str, batch: int) -> Session:
    """A DANN run of `steps` steps that is evaluated and saved only at its end."""
    cfg = compose(
        [
            "method=dann",
            f"data={data}",
            f"trainer.steps={steps}",
            f"trainer.eval_every={steps}",
            f"trainer.batch_size={batch}",
            f"trainer.precision={precision}",
            "evaluate.target_test=false",
        ]
    )
    run_dir = RunDir.create(folder / f"{time.monotonic_ns()}")
    run_dir.checkpoints.mkdir()
    return open_session(run_dir, plain(resolve_auto(cfg)))


def time_runner(session: Session) -> float:
    """Steps a second of Trainer.fit, evaluations left out (a bare loop has none)."""
    trainer = session.trainer()
    trainer.fit()
    return trainer.global_step / trainer.counters.train_seconds


def time_bare(session: Session, steps: int, batch: int, precision: str) -> float:
    sets = {name: session.data.stream_set(name) for name in ("source", "target")}
    images = {name: found.read(torch.arange(len(found))) for name, found in sets.items()}
    labels = sets["source"].labels
    began = time.perf_counter()
    bare_train(images["source"], labels, images["target"], steps, batch, precision == "bf16")
    return steps / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="mnist_mnistm")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"batch {options.batch} per domain"
    )
    speeds: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(options.rounds + 1):
            for precision in ("fp32", "bf16"):
                session = runner_session(
                    Path(folder), options.data, options.steps, precision, options.batch
                )
                order = ("bare", "runner") if round_ % 2 else ("runner", "bare")
                for which in order:
                    speed = (
                        time_runner(session)
                        if which == "runner"
                        else time_bare(session, options.steps, options.batch, precision)
                    )
                    if round_:  # the first round warms up
                        speeds.setdefault((which, precision), []).append(speed)
    medians = {key: statistics.median(values) for key, values in speeds.items()}
    for precision in ("fp32", "bf16"):
        bare, runner = medians["bare", precision], medians["runner", precision]
        ratios = [
            r / b
            for r, b in zip(speeds["runner", precision], speeds["bare", precision], strict=True)
        ]
        print(
            f"{precision}: bare {bare:.1f} steps/s, runner {runner:.1f} steps/s, "
            f"ratio {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})"
        )
    print(
        f"bf16 / fp32: bare {medians['bare', 'bf16'] / medians['bare', 'fp32']:.2f}, "
        f"runner {medians['runner', 'bf16'] / medians['runner', 'fp32']:.2f}"
    )
    print(f"Stream: {stream_cost(session, options.batch):.2f} ms a batch of {options.batch}")


def stream_cost(session: Session, batch: int) -> float:
    """Milliseconds of one batch of the data path alone."""
    data = session.data
    stream = Stream(
        "source",
        data.stream_set("source"),
        batch_size=batch,
        seed=0,
        preprocess=data.preprocess,
        device="cpu",
    )
    began = time.perf_counter()
    for step in range(200):
        stream.batch(step)
    return (time.perf_counter() - began) * 1000 / 200


if __name__ == "__main__":
    main()
