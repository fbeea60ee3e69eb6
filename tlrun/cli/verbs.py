"""What each verb does with its arguments. Every import of a verb's own stands in its function:
`tlrun list` starts in a tenth of the time that torch takes."""

from __future__ import annotations

import argparse
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tlrun.cli.parsers import parser_of
from tlrun.errors import ConfigError


def run_verb(verb: str, arguments: list[str]) -> int:
    """Check the arguments cheaply, then import what the verb needs and run it: the exit code."""
    try:
        args = parser_of(verb).parse_intermixed_args(arguments)
    except SystemExit:  # --help
        return 0
    if verb in WITHOUT_A_RUN:
        return WITHOUT_A_RUN[verb](args)
    check_folder(args.run_dir, sweep_allowed=verb in ("resume", "reproduce"))
    from tlrun.config.trust import trusting

    with trusting(args.trust, config_dir=args.config_dir):
        return WITH_A_RUN[verb](args)


def check_folder(path: Path, *, sweep_allowed: bool) -> None:
    """Raise ConfigError unless `path` is a run folder, or a sweep where that will do."""
    from tlrun.run_folder.run_dir import RunDir, is_sweep, runs_in

    if sweep_allowed and path.is_dir() and (runs_in(path) or is_sweep(path)):
        return
    RunDir.open(path)


def list_options(args: argparse.Namespace) -> int:
    from tlrun.cli.list_options import listing
    from tlrun.config.packaged import conf_dir

    if args.config_dir and not args.config_dir.is_dir():
        raise ConfigError(f"--config-dir {args.config_dir}: there is no such folder")
    folders = [conf_dir(), *([args.config_dir] if args.config_dir else [])]
    print(listing(args.kinds, folders))
    return 0


def prepare(args: argparse.Namespace) -> int:
    from tlrun.config.compose import compose

    cfg = compose(args.overrides, config_dir=args.config_dir)  # before torch comes in
    from tlrun.data import prepare

    prepare.main(cfg)
    return 0


def features(args: argparse.Namespace) -> int:
    """Of a run (then its folder is the first word), or of a configuration."""
    from tlrun.config.trust import trusting

    first, *rest = args.words
    is_run = "=" not in first
    if is_run:
        check_folder(Path(first), sweep_allowed=False)
    elif others := [word for word in args.words if "=" not in word]:
        raise ConfigError(f"{others[0]} is no key=value; the folder of a run stands first")
    with trusting(args.trust, config_dir=args.config_dir):
        _check_words(args)
        from tlrun.experiment.features import of_config, of_run

        if is_run:
            of_run(Path(first), rest, args.output)
        else:
            of_config(args.words, args.config_dir, args.output)
    return 0


def rank(args: argparse.Namespace) -> int:
    """Of runs (their folders stand first), or of a configuration with several backbones."""
    from tlrun.config.trust import trusting

    runs = list(itertools.takewhile(lambda word: "=" not in word, args.words))
    if others := [word for word in args.words[len(runs) :] if "=" not in word]:
        raise ConfigError(f"{others[0]} is no key=value; the folders of runs stand first")
    for run in runs:
        check_folder(Path(run), sweep_allowed=False)
    if args.sweep and args.output:
        raise ConfigError("--sweep and --output both say where the files go: give one")
    if args.sweep:
        from tlrun.run_folder.run_dir import is_sweep, runs_in

        if not args.sweep.is_dir() or not (runs_in(args.sweep) or is_sweep(args.sweep)):
            raise ConfigError(f"--sweep {args.sweep}: there is no sweep in that folder")
    if args.images is not None and args.images < 2:
        raise ConfigError(f"--images {args.images}: scores need at least 2 images")
    with trusting(args.trust, config_dir=args.config_dir):
        if not runs:
            from tlrun.config.combinations import combinations
            from tlrun.config.compose import compose

            for words in combinations(args.words).values():
                compose(words, config_dir=args.config_dir)  # before torch comes in
        from tlrun.experiment.rank import rank

        rank(args.words, args.config_dir, args.sweep or args.output, args.images)
        if args.sweep:
            from tlrun.experiment.rank import beside_trained

            beside_trained(args.sweep)
    return 0


def _check_words(args: argparse.Namespace) -> None:
    """The configuration, before torch is imported."""
    first, *rest = args.words
    if "=" in first:
        from tlrun.config.compose import compose

        compose(args.words, config_dir=args.config_dir)
    elif (config := Path(first) / "config.yaml").is_file():
        from tlrun.config.saved import load_config

        with _unsaid():
            load_config(config, rest)


def report(args: argparse.Namespace) -> int:
    """Pages and leaderboards: they show what files hold, and run nothing of it."""
    for path in args.paths:
        if not next(path.rglob("status.json"), None):  # also a folder of sweeps
            check_folder(path, sweep_allowed=True)
    if args.compare:
        from tlrun.report.pages.write import write_comparison

        print(write_comparison(args.paths, args.compare))
        return 0
    from tlrun.report.pages.write import write_report

    if args.output and len(args.paths) > 1:
        raise ConfigError("--output takes the page of one run: give one folder")
    for path in args.paths:
        print(write_report(path, args.output))
    return 0


# ---- with a run, within what this command trusts ------------------------------------------------


def resume(args: argparse.Namespace) -> int:
    from tlrun.run_folder.run_dir import is_sweep

    _check_overrides(args)
    if is_sweep(args.run_dir):
        from tlrun.cli.train import train
        from tlrun.sweep.resume import resume_sweep

        return resume_sweep(args.run_dir, args.overrides, train=train)
    from tlrun.experiment.nodes import code_of_node_0, on_nodes, saved_configs

    def resume_here() -> int:
        from tlrun.experiment.resume import resume

        resume(args.run_dir, args.overrides)
        return 0

    configs = saved_configs(args.run_dir, args.overrides)
    return on_nodes(configs, resume_here, code_of_node_0)


def reproduce(args: argparse.Namespace) -> int:
    _check_overrides(args)
    from tlrun.experiment.nodes import code_of_node_0, on_nodes, saved_configs

    def reproduce_here() -> int:
        from tlrun.experiment.reproduce import reproduce

        return reproduce(args.run_dir, args.overrides, args.tolerance)

    configs = saved_configs(args.run_dir, args.overrides)
    return on_nodes(configs, reproduce_here, code_of_node_0)


def evaluate(args: argparse.Namespace) -> int:
    _check_overrides(args)
    from tlrun.experiment.evaluate import evaluate

    evaluate(args.run_dir, args.overrides)
    return 0


def _check_overrides(args: argparse.Namespace) -> None:
    """Against the saved config, before torch is imported."""
    config = args.run_dir / "config.yaml"
    if config.is_file():  # not so for a sweep
        from tlrun.config.saved import load_config

        with _unsaid():
            load_config(config, args.overrides)


@contextmanager
def _unsaid() -> Iterator[None]:
    """Without the warnings, which come when the work itself reads the configuration."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def predict(args: argparse.Namespace) -> int:
    from tlrun.inference import predict

    predict.main(
        args.run_dir,
        args.images,
        args.task,
        args.output,
        args.checkpoint,
        args.support,
        args.classes,
        args.unknown_below,
        args.candidates,
        args.gamma,
    )
    return 0


def export(args: argparse.Namespace) -> int:
    from tlrun.inference import export

    print(export.main(args.run_dir, args.to, args.output, args.checkpoint, args.task))
    return 0


Run = Callable[[argparse.Namespace], int]
WITHOUT_A_RUN: dict[str, Run] = {
    "list": list_options,
    "prepare": prepare,
    "report": report,
    "features": features,  # with a run or without
    "rank": rank,
}
WITH_A_RUN: dict[str, Run] = {
    "resume": resume,
    "reproduce": reproduce,
    "evaluate": evaluate,
    "predict": predict,
    "export": export,
}
