"""The command `tlrun`: argv -> a verb, or training through Hydra -> an exit code. Imports no torch.

Exit codes: 0 fine, 1 the run failed, 2 the command was wrong, 130 / 143 interrupted.
"""

from __future__ import annotations

import difflib
import os
import sys
import time
import traceback
from pathlib import Path

from tlrun.cli.help_text import HELP
from tlrun.cli.parsers import VERBS, Parser
from tlrun.errors import ConfigError, did_you_mean


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Only --debug shows tracebacks."""
    began = time.time()
    try:
        return run_command(_prepared(list(sys.argv[1:] if argv is None else argv)), began)
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


def _prepared(argv: list[str]) -> list[str]:
    """The same without --debug and with the verb first; sets the environment for them."""
    if "--debug" in argv:
        argv = [argument for argument in argv if argument != "--debug"]
        os.environ["TLRUN_DEBUG"] = "1"  # the environment reaches the processes of a launcher too
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra must let exceptions through to `report_error`
    # Threads that spin while they wait crawl on a busy machine (docs/decisions.md, "Threads").
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if argv[:1] in (["--config-dir"], ["-cd"]) and argv[2:3] and argv[2] in VERBS:
        return [argv[2], *argv[:2], *argv[3:]]  # the flag may stand before its verb
    return argv


def run_command(argv: list[str], began: float) -> int:
    """A verb, help, or training. began: time.time() when the command did."""
    verb = argv[0] if argv and "=" not in argv[0] else ""
    if verb in VERBS:
        from tlrun.cli.verbs import run_verb

        return run_verb(verb, argv[1:])
    if any(argument in ("--help", "-h") for argument in argv):
        print(HELP)
        return 0
    if "--version" in argv:
        from tlrun import __version__

        print(f"tlrun {__version__}")
        return 0
    if verb and not verb.startswith("-"):
        check_first_word(verb)
    argv, modules = without_trust(argv)
    from tlrun.cli.train import train
    from tlrun.config.trust import trusting

    with trusting(modules):
        return train(argv, began)


def without_trust(argv: list[str]) -> tuple[list[str], list[str]]:
    """(arguments for Hydra, the modules of `--trust MODULE`), which Hydra does not know."""
    parser = Parser(prog="tlrun", add_help=False, allow_abbrev=False)
    parser.add_argument("--trust", action="append", default=[])
    args, rest = parser.parse_known_args(argv)
    return rest, args.trust


def check_first_word(word: str) -> None:
    """A first word without `=` that is no verb: say what it was probably meant to be."""
    if word in ("run", "train"):
        raise ConfigError(f"'{word}' is not needed: tlrun alone trains, as in tlrun method=dann")
    if Path(word).is_dir():
        raise ConfigError(f"what to do with {word}? for example: tlrun resume {word}")
    if difflib.get_close_matches(word, VERBS, n=1):
        raise ConfigError(f"there is no command '{word}': {did_you_mean(word, VERBS)}")
