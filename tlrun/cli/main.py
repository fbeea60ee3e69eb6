"""The command `tlrun`: argv -> a verb, or training through Hydra -> an exit code. Imports no torch.

Exit codes: 0 fine, 1 the run failed, 2 the command was wrong, 130 / 143 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

from tlrun.errors import ConfigError, did_you_mean

HELP = """\
tlrun: transfer-learning experiments. One source -> target pair, one backbone, one method.

  tlrun [key=value ...]                    train, evaluate, write a run folder with report.html
  tlrun -m key=a,b,c [key=value ...]       every combination, with a leaderboard (sweep)
  tlrun resume RUN_DIR|SWEEP_DIR           go on where it stopped, exactly (of a sweep: every job)
  tlrun reproduce RUN_DIR [key=value ...]  run its saved config again; exit 1 on any difference
  tlrun evaluate RUN_DIR [key=value ...]   evaluate the trained model, also on other data
  tlrun predict RUN_DIR IMAGE|FOLDER ...   label and confidence of your images
  tlrun export RUN_DIR --to torch_export|onnx
  tlrun report RUN_DIR|SWEEP_DIR ...       write the page or the leaderboard again
  tlrun report SWEEP_A SWEEP_B --compare FOLDER    one leaderboard over all of them
  tlrun list [methods|data|backbones|experiments|recipes|launchers|searches ...]
  tlrun prepare data=...                   download, verify and build a data set

Examples
  tlrun                                    DANN on the bundled digits, about three minutes
  tlrun method=dann data=mnist_mnistm
  tlrun method=source_only data=folder data.source.root=photos data.target.root=sketches
  tlrun -m method=source_only,dann seed=0,1,2
  tlrun -m method=dann 'seed=range(8)' launcher=joblib     several jobs at once; on Slurm: submitit
  tlrun -m method=dann search=optuna search.trials=20      look for a good setting, without labels
  tlrun experiment=mnist_mnistm/dann       a published row with all its settings
  tlrun trainer.steps=500 optimizer=sgd optimizer.lr=0.01
  tlrun --config-dir my_conf method=mine   your own method, `_target_: my_methods.Mine`

Keys (all of them, with values: tlrun --cfg job)
  data, backbone, method, optimizer, schedule, trainer, select, logger, recipe, experiment,
  launcher, search       groups: `tlrun list` names the options, `method.trade_off=0.5` sets one key
  seed                   one number decides order, augmentation, weights and splits
  target_labels          auto | none | all | labels per class that the method may see
  target_images          all | none
  batch_norm             auto | joint | separate_forward | per_domain
  trainer.*              steps or epochs, batch_size, device, devices, threads, precision, compile,
                         eval_every, checkpoint_every ...
  phases.NAME.*          steps, optimizer, schedule, frozen of one phase
  select, selectors      which checkpoint is reported; which others are kept
  dry_run=true           build all, show shapes and parameters, run one batch
  hydra.run.dir=FOLDER   where the run folder goes (hydra.sweep.dir for -m)

Flags
  -m, --multirun    -c, --cfg job    --config-dir FOLDER    --debug (tracebacks)    --hydra-help
  --trust MODULE    of a verb: your own module, which the run's files may name (docs/security.md)
  eval "$(tlrun -sc install=bash)"         tab completion (also zsh, fish)

Exit codes: 0 fine, 1 the run failed, 2 the command was wrong, 130/143 interrupted.
`tlrun VERB --help` explains a verb."""

VERBS = (
    "resume",
    "reproduce",
    "evaluate",
    "predict",
    "export",
    "report",
    "list",
    "prepare",
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Only --debug shows tracebacks."""
    began, words = time.time(), list(sys.argv[1:] if argv is None else argv)
    if "--debug" in words:
        words = [word for word in words if word != "--debug"]
        os.environ["TLRUN_DEBUG"] = "1"  # the environment reaches the processes of a launcher too
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra must let exceptions through to `report`
    # Threads that spin while they wait crawl on a busy machine (docs/decisions.md, "Threads").
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if words[:1] in (["--config-dir"], ["-cd"]) and words[2:3] and words[2] in VERBS:
        words = [words[2], *words[:2], *words[3:]]  # the flag may stand before its verb
    try:
        verb = words[0] if words and "=" not in words[0] else ""
        if verb in VERBS:
            return run_verb(verb, words[1:])
        if any(word in ("--help", "-h") for word in words):
            print(HELP)
            return 0
        if "--version" in words:
            from tlrun import __version__

            print(f"tlrun {__version__}")
            return 0
        if verb and not verb.startswith("-"):
            check_first_word(verb)
        words, modules = without_trust(words)
        from tlrun.cli.train import train
        from tlrun.config.trust import trusting

        with trusting(modules):
            return train(words, began)
    except SystemExit as stop:  # an interrupted sweep, Hydra's own help
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BrokenPipeError:  # `tlrun list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as error:  # maybe amid an import: nothing more is imported
        if os.environ.get("TLRUN_DEBUG"):
            traceback.print_exception(error)
        print("tlrun: interrupted", file=sys.stderr)
        return int(getattr(error, "exit_code", 130))
    except Exception as error:
        from tlrun.messages import report_error

        return report_error(error)


def without_trust(words: list[str]) -> tuple[list[str], list[str]]:
    """(words for Hydra, the modules of `--trust MODULE`), which Hydra does not know."""
    parser = Parser(prog="tlrun", add_help=False, allow_abbrev=False)
    parser.add_argument("--trust", action="append", default=[])
    found, rest = parser.parse_known_args(words)
    return rest, found.trust


def check_first_word(word: str) -> None:
    """A first word without `=` that is no verb: say what it was probably meant to be."""
    if word in ("run", "train"):
        raise ConfigError(f"'{word}' is not needed: tlrun alone trains, as in tlrun method=dann")
    if Path(word).is_dir():
        raise ConfigError(f"what to do with {word}? for example: tlrun resume {word}")
    if difflib.get_close_matches(word, VERBS, n=1):
        raise ConfigError(f"there is no command '{word}': {did_you_mean(word, VERBS)}")


class Parser(argparse.ArgumentParser):
    """argparse with one sentence instead of its usage block."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def parser_of(verb: str) -> Parser:
    """The arguments of one verb."""

    def new(description: str, example: str, *, run_dir: bool = True) -> Parser:
        parser = Parser(
            prog=f"tlrun {verb}", description=description, epilog=f"Example: tlrun {example}"
        )
        if run_dir:
            parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of a run")
            parser.add_argument(
                "--trust",
                action="append",
                default=[],
                metavar="MODULE",
                help="a module of your own that the run's files may name (docs/security.md)",
            )
            parser.add_argument(
                "--config-dir",
                "-cd",
                type=Path,
                metavar="FOLDER",
                help="your own configuration: the modules that it names are trusted",
            )
        return parser

    def with_overrides(parser: Parser) -> Parser:
        parser.add_argument(
            "overrides", nargs="*", metavar="key=value", help="changes to its saved config"
        )
        return parser

    if verb == "resume":
        parser = new(
            "Go on where a run or sweep stopped. The result equals a straight run's, bit by bit.",
            "resume outputs/2025-01-31/12-00-00_dann_digits_digitsm_1a2b3c",
        )
        return with_overrides(parser)
    if verb == "reproduce":
        parser = new(
            "Run a saved config again in a new folder and compare: exit code 0 if metrics and "
            "weights are equal bit by bit (on another machine: closing figures within a "
            "tolerance), 1 with the differences if not. Of a sweep: every completed job.",
            "reproduce RUN_DIR seed=7",
        )
        parser.add_argument(
            "--tolerance",
            type=float,
            metavar="T",
            help="closing figures may differ by T (by T of their value if above 1), on any machine",
        )
        return with_overrides(parser)
    if verb == "evaluate":
        parser = new(
            "Evaluate a trained model, also on other data.", "evaluate RUN_DIR data=usps_mnist"
        )
        return with_overrides(parser)
    if verb == "predict":
        parser = new("Label and confidence of images.", "predict RUN_DIR photo.jpg folder/")
        parser.add_argument(
            "images",
            nargs="+",
            type=Path,
            metavar="IMAGE|FOLDER",
            help="image files, or folders of them",
        )
        parser.add_argument("--task", help="which task's head, if the run has several")
        parser.add_argument(
            "--support",
            type=Path,
            metavar="FOLDER",
            help="a folder per new class with a few images each, for a few-shot run",
        )
        parser.add_argument(
            "--classes",
            type=Path,
            metavar="CSV",
            help="further classes by name and attribute row, for a zero-shot run",
        )
        parser.add_argument(
            "--unknown-below",
            type=float,
            default=0.0,
            metavar="T",
            help="answer 'none of these' below this confidence",
        )
        parser.add_argument(
            "--checkpoint", default="selected", help="selected, last or a rule's name"
        )
        parser.add_argument("--output", type=Path, help="write a CSV file instead of printing")
        return parser
    if verb == "export":
        parser = new("Carry the trained model away.", "export RUN_DIR --to onnx")
        parser.add_argument(
            "--to", choices=("torch_export", "onnx"), required=True, help="file format"
        )
        parser.add_argument("--task", help="which task's head, if the run has several")
        parser.add_argument(
            "--checkpoint", default="selected", help="selected, last or a rule's name"
        )
        parser.add_argument(
            "--output", type=Path, help="file to write (default: in the run folder)"
        )
        return parser
    if verb == "report":
        parser = new(
            "Write report.html, or a sweep's leaderboard, again; or one page over all the folders.",
            "report SWEEP_A SWEEP_B --compare FOLDER",
            run_dir=False,
        )
        parser.add_argument(
            "paths", nargs="+", type=Path, metavar="RUN_DIR|SWEEP_DIR", help="folders"
        )
        parser.add_argument(
            "--compare", type=Path, metavar="FOLDER", help="one leaderboard over all, written here"
        )
        parser.add_argument(
            "--output", type=Path, metavar="FOLDER", help="for the page of a run that is read-only"
        )
        return parser
    if verb == "list":
        parser = new("What can be chosen, a line each.", "list methods", run_dir=False)
        kinds = "methods|data|backbones|terms|balances|selectors|recipes|experiments"
        parser.add_argument("kinds", nargs="*", metavar=kinds)
        parser.add_argument(
            "--config-dir", "-cd", type=Path, help="a further folder of config groups"
        )
        return parser
    parser = new(
        "Download, verify and build a data set.", "prepare data=mnist_mnistm", run_dir=False
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="data=... and its keys")
    parser.add_argument("--config-dir", "-cd", type=Path, help="a further folder of config groups")
    return parser


def run_verb(verb: str, words: list[str]) -> int:
    """Check the arguments cheaply, then import what the verb needs and run it."""
    try:
        args = parser_of(verb).parse_intermixed_args(words)
    except SystemExit:  # --help
        return 0
    if verb == "list":
        from tlrun.cli.list_options import listing
        from tlrun.config.packaged import conf_dir

        if args.config_dir and not args.config_dir.is_dir():
            raise ConfigError(f"--config-dir {args.config_dir}: there is no such folder")
        folders = [conf_dir(), *([args.config_dir] if args.config_dir else [])]
        print(listing(args.kinds, folders))
        return 0
    if verb == "prepare":
        from tlrun.config.compose import compose

        cfg = compose(args.overrides, config_dir=args.config_dir)
        from tlrun.data import prepare

        prepare.main(cfg)
        return 0
    if verb == "report":
        return report_verb(args)
    check_folder(args.run_dir, sweep_allowed=verb in ("resume", "reproduce"))
    from tlrun.config.trust import trusting

    with trusting(args.trust, config_dir=args.config_dir):
        return run_dir_verb(verb, args)


def report_verb(args: argparse.Namespace) -> int:
    """Pages and leaderboards: they show what files hold, and run nothing of it."""
    for path in args.paths:
        if not next(path.rglob("status.json"), None):  # also a folder of sweeps
            check_folder(path, sweep_allowed=True)
    if args.compare:
        from tlrun.report.pages.leaderboard import write_comparison

        print(write_comparison(args.paths, args.compare))
        return 0
    from tlrun.report.pages.page import write_report

    if args.output and len(args.paths) > 1:
        raise ConfigError("--output takes the page of one run: give one folder")
    for path in args.paths:
        print(write_report(path, args.output))
    return 0


def run_dir_verb(verb: str, args: argparse.Namespace) -> int:
    """What uses a run, within what this command trusts."""
    if verb == "predict":
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
        )
    elif verb == "export":
        from tlrun.inference import export

        print(export.main(args.run_dir, args.to, args.output, args.checkpoint, args.task))
    else:
        return train_verb(verb, args)
    return 0


def train_verb(verb: str, args: argparse.Namespace) -> int:
    """resume, reproduce, evaluate; overrides are checked against the saved config first."""
    config = args.run_dir / "config.yaml"
    if config.is_file():  # not so for a sweep
        from tlrun.config.compose import load_config

        load_config(config, args.overrides)
    if verb == "resume":
        from tlrun.run_folder.run_dir import is_sweep

        if is_sweep(args.run_dir):
            from tlrun.cli.train import train
            from tlrun.sweep.resume import resume_sweep

            return resume_sweep(args.run_dir, args.overrides, train=train)
        from tlrun.experiment.resume import resume

        resume(args.run_dir, args.overrides)
        return 0
    if verb == "reproduce":
        from tlrun.experiment.reproduce import reproduce

        return reproduce(args.run_dir, args.overrides, args.tolerance)
    from tlrun.experiment.summary import evaluate

    evaluate(args.run_dir, args.overrides)
    return 0


def check_folder(path: Path, *, sweep_allowed: bool) -> None:
    """Raise ConfigError unless `path` is a run folder, or a sweep where that will do."""
    from tlrun.run_folder.run_dir import RunDir, is_sweep, runs_in

    if sweep_allowed and path.is_dir() and (runs_in(path) or is_sweep(path)):
        return
    RunDir.open(path)
