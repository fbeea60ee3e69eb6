"""The arguments of each verb of `tlrun`, one small function a verb."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tlrun.cli.list_options import GROUPS
from tlrun.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """argparse with one sentence instead of its usage block."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def parser_of(verb: str) -> Parser:
    """The arguments of one of VERBS."""
    return PARSERS[verb]()


def resume_parser() -> Parser:
    parser = _of_run(
        "resume",
        "Go on where a run or sweep stopped. The result equals a straight run's, bit by bit.",
        "resume outputs/2025-01-31/12-00-00_dann_digits_digitsm_1a2b3c",
    )
    return _with_overrides(parser)


def reproduce_parser() -> Parser:
    parser = _of_run(
        "reproduce",
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
    return _with_overrides(parser)


def evaluate_parser() -> Parser:
    parser = _of_run(
        "evaluate",
        "Evaluate a trained model, also on other data.",
        "evaluate RUN_DIR data=usps_mnist",
    )
    return _with_overrides(parser)


def predict_parser() -> Parser:
    parser = _of_run(
        "predict", "Label and confidence of images.", "predict RUN_DIR photo.jpg folder/"
    )
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE|FOLDER",
        help="image files, or folders of them",
    )
    _add_task(parser)
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
        "--candidates",
        choices=("all", "unseen"),
        help="which classes may be the answer, for a zero-shot run (default: all)",
    )
    parser.add_argument(
        "--gamma",
        type=float,
        metavar="G",
        help="taken off the scores of the seen classes, in place of the run's own calibration",
    )
    parser.add_argument(
        "--unknown-below",
        type=float,
        default=0.0,
        metavar="T",
        help="answer 'none of these' below this confidence",
    )
    _add_checkpoint(parser)
    parser.add_argument("--output", type=Path, help="write a CSV file instead of printing")
    return parser


def export_parser() -> Parser:
    parser = _of_run("export", "Carry the trained model away.", "export RUN_DIR --to onnx")
    parser.add_argument("--to", choices=("torch_export", "onnx"), required=True, help="file format")
    _add_task(parser)
    _add_checkpoint(parser)
    parser.add_argument("--output", type=Path, help="file to write (default: in the run folder)")
    return parser


def features_parser() -> Parser:
    parser = _new(
        "features",
        "Write the features of all images, with labels and paths: an .npz for each domain. By the "
        "selected weights of a run, or by a pretrained backbone on any data.",
        "features data=pacs backbone=efficientnet_lite0 init=pretrained",
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="RUN_DIR|key=value",
        help="folder of a run (and changes to its saved config), or a configuration",
    )
    _add_trust(parser)
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where the files go")
    return parser


def rank_parser() -> Parser:
    parser = _new(
        "rank",
        "Score nets and their stages on the target's labelled images, without training: LogME, "
        "H-score, LEEP, NCE, logistic regression and nearest neighbours. A table, rank.csv and "
        "rank.png.",
        "rank data=pacs data.source=photo data.target=sketch backbone=efficientnet_lite0,resnet18",
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="RUN_DIR|key=value",
        help="folders of runs (and changes to their data), or a configuration of several backbones",
    )
    _add_trust(parser)
    parser.add_argument(
        "--images", type=int, metavar="N", help="score by N images at most (default: 5,000)"
    )
    parser.add_argument(
        "--sweep",
        type=Path,
        metavar="SWEEP_DIR",
        help="a sweep over transfer.cut: the files go there, and the scores' rank correlation with "
        "its trained figures onto its page",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="where the files go (default: outputs/rank)"
    )
    return parser


def report_parser() -> Parser:
    parser = _new(
        "report",
        "Write report.html, or a sweep's leaderboard, again; or one page over all the folders.",
        "report SWEEP_A SWEEP_B --compare FOLDER",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="RUN_DIR|SWEEP_DIR", help="folders")
    parser.add_argument(
        "--compare", type=Path, metavar="FOLDER", help="one leaderboard over all, written here"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="for the page of a run that is read-only"
    )
    return parser


def list_parser() -> Parser:
    parser = _new("list", "What can be chosen, a line each.", "list methods")
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help=f"{', '.join(GROUPS)}; all if none is named"
    )
    parser.add_argument("--config-dir", "-cd", type=Path, help="a further folder of config groups")
    return parser


def prepare_parser() -> Parser:
    parser = _new("prepare", "Download, verify and build a data set.", "prepare data=mnist_mnistm")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="data=... and its keys")
    parser.add_argument("--config-dir", "-cd", type=Path, help="a further folder of config groups")
    return parser


PARSERS: dict[str, Callable[[], Parser]] = {
    "resume": resume_parser,
    "reproduce": reproduce_parser,
    "evaluate": evaluate_parser,
    "predict": predict_parser,
    "export": export_parser,
    "features": features_parser,
    "rank": rank_parser,
    "report": report_parser,
    "list": list_parser,
    "prepare": prepare_parser,
}
VERBS = tuple(PARSERS)


# ---- what several verbs take --------------------------------------------------------------------


def _new(verb: str, description: str, example: str) -> Parser:
    return Parser(prog=f"tlrun {verb}", description=description, epilog=f"Example: tlrun {example}")


def _of_run(verb: str, description: str, example: str) -> Parser:
    """Of a verb that uses a run, with what it may trust."""
    parser = _new(verb, description, example)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of a run")
    _add_trust(parser)
    return parser


def _add_trust(parser: Parser) -> None:
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


def _with_overrides(parser: Parser) -> Parser:
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],  # else argparse names it among what is missing
        metavar="key=value",
        help="changes to its saved config",
    )
    return parser


def _add_task(parser: Parser) -> None:
    parser.add_argument("--task", help="which task's head, if the run has several")


def _add_checkpoint(parser: Parser) -> None:
    parser.add_argument("--checkpoint", default="selected", help="selected, last or a rule's name")
