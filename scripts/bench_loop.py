"""A step of the trainer against bare loops, and what evaluations add: one process, in turn.

    TLRUN_DATA=... python scripts/bench_loop.py [--data mnist_usps] [--steps 40] [--rounds 5]

The bare loop (`bare_loop.py`) imports nothing of tlrun and is tried in four forms: channels first
or last, one forward over both domains or one each. The best one in the median is what a step is
compared with; it computes no more than the method asks for. "Of equal computation" is the best of
those with a forward for each domain, since one over both has joint batch statistics, which is
another model; dropout is alike in all. Printed: CPU milliseconds of a step (median and range over
rounds), of forward and backward alone on a ready batch, their ratios to a step of the trainer, and
of 20 evaluations their share of `--budget` steps of training.

CPU seconds of this process are counted, so that other programs disturb little.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path

import torch
from bare_loop import FORMS, Bare, Form
from bench_lines import ratios, say

from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.engine.hooks import Hooks
from tlrun.engine.precision import autocast
from tlrun.experiment.assemble import open_session
from tlrun.experiment.auto import resolve_auto
from tlrun.experiment.session import Session
from tlrun.run_folder.run_dir import RunDir

EVALUATIONS = 20


def runner_session(
    folder: Path, data: str, steps: int, precision: str, batch: int, *more: str
) -> Session:
    """A DANN run of `steps` steps."""
    words = [
        "method=dann",
        f"data={data}",
        f"trainer.steps={steps}",
        f"trainer.eval_every={steps}",
        f"trainer.batch_size={batch}",
        f"trainer.precision={precision}",
        *more,
    ]
    run_dir = RunDir.create(folder / f"{time.monotonic_ns()}")
    run_dir.checkpoints.mkdir()
    return open_session(run_dir, plain(resolve_auto(compose(words))))


def time_runner(folder: Path, options: argparse.Namespace, precision: str) -> float:
    """CPU seconds of a step, the first left out."""
    session = runner_session(folder, options.data, options.steps, precision, options.batch)
    marks: list[float] = []
    hooks = Hooks(after_step=lambda _: marks.append(time.process_time()))
    session.trainer(hooks, evaluates=False).fit()
    return (marks[-1] - marks[0]) / (len(marks) - 1)


def time_evaluation(session: Session, precision: str) -> float:
    """CPU seconds of one evaluation, its row only."""
    session.net.eval()
    with torch.no_grad(), autocast(precision, session.device):
        session.evaluator.row(session.net)
        began = time.process_time()
        session.evaluator.row(session.net)
    return time.process_time() - began


def measure(options: argparse.Namespace, precision: str) -> dict[str, list[float]]:
    """CPU seconds by what was timed: runner, evaluation, each Form, and its ready batch."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        session = runner_session(folder, options.data, 1, precision, options.batch)
        session.build_all()
        sets = {name: session.data.stream_set(name) for name in ("source", "target")}
        images = {name: kept.read(torch.arange(len(kept))) for name, kept in sets.items()}

        def bare(form: Form) -> Bare:
            labels = sets["source"].labels
            bf16 = precision == "bf16"
            return Bare(form, images["source"], labels, images["target"], options.batch, bf16)

        timed = {str(form): lambda form=form: bare(form).train(options.steps) for form in FORMS}
        timed |= {
            f"ready: {form}": lambda form=form: bare(form).compute(options.steps) for form in FORMS
        }
        timed["trainer"] = lambda: time_runner(folder, options, precision)
        timed["evaluation"] = lambda: time_evaluation(session, precision)
        for round_ in range(options.rounds + 1):
            for name in sorted(timed, reverse=bool(round_ % 2)):
                seconds = timed[name]()
                if round_:  # the first round warms up
                    found.setdefault(name, []).append(seconds)
    return found


def report(found: dict[str, list[float]], precision: str, options: argparse.Namespace) -> None:
    forms = [str(form) for form in FORMS]
    equal = [str(form) for form in FORMS if not form.joint]  # of each domain, as the method asks
    ready = _best(found, [f"ready: {name}" for name in forms])
    for name in ("trainer", *forms, ready):
        say(f"  {precision} {name}", [1000 * s for s in found[name]], 1, "ms")
    for kind, best, aim in (
        ("speed of the trainer's step, best bare loop = 1", _best(found, forms), ">= 0.97"),
        ("the same, best bare loop of equal computation = 1", _best(found, equal), ""),
        ("forward and backward of a ready batch in a step of the trainer", ready, ">= 0.90"),
    ):
        values = ratios(found[best], found["trainer"])
        say(f"{precision}: {kind} ({best.removeprefix('ready: ')})", values, 3, aim=aim)
    shares = [
        100 * EVALUATIONS * row / (options.budget * step)
        for row, step in zip(found["evaluation"], found["trainer"], strict=True)
    ]
    name = (
        f"{precision}: {EVALUATIONS} evaluations of {options.data}, share of {options.budget} steps"
    )
    say(name, shares, 1, "%", aim="<= 6")


def _best(found: dict[str, list[float]], names: list[str]) -> str:
    return min(names, key=lambda name: statistics.median(found[name]))


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="mnist_usps")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--budget", type=int, default=2000, help="steps of a run")
    parser.add_argument("--precision", nargs="+", default=["bf16", "fp32"])
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    options = arguments(words)
    logging.disable(logging.INFO)
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {options.data}, batch "
        f"{options.batch} per domain; CPU time"
    )
    for precision in options.precision:
        report(measure(options, precision), precision, options)


if __name__ == "__main__":
    main()
