"""Training from the command line and from Python: overrides -> checked config -> run folder -> run.

The command line goes through `hydra.main`, so that every launcher and sweeper works. A mistake is
found before, by composing the same command once without making a folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override, ValueType
from hydra.types import RunMode
from omegaconf import DictConfig

from tlrun.config.build import check_targets, check_values, locate, plain
from tlrun.config.compose import compose, register_resolvers, resolve_and_check, version_base
from tlrun.config.explain import explain
from tlrun.config.hashes import config_dir_of
from tlrun.config.overrides import (
    key_of,
    keys_of_swept_groups,
    open_keys,
    override_list,
    parse_overrides,
)
from tlrun.config.packaged import conf_dir
from tlrun.config.saved_code import composed
from tlrun.errors import ConfigError, RecordedFault, UnknownKey, did_you_mean
from tlrun.experiment import start
from tlrun.experiment.nodes import code_of_node_0, nodes_of, on_nodes, summary_of_node_0
from tlrun.loggers.make import check_installed
from tlrun.messages import report_error, say
from tlrun.run_folder.run_dir import runs_in
from tlrun.sweep.folder import close_sweep, discard_dry_run
from tlrun.sweep.launchers import check_extras, trains_here
from tlrun.sweep.own_targets import another_pair
from tlrun.sweep.progress import progress_bar
from tlrun.sweep.run_or_skip import run_job
from tlrun.sweep.state import SweepState, current_sweep, sweep_state

# Of each swept key before a sweep starts; every job checks its own config anyway.
VALUES_CHECKED = 20

register_resolvers()  # at import: the processes of a launcher import this module to find `job`


# ---- the command line -----------------------------------------------------------------------


def train(argv: list[str], began: float | None = None) -> int:
    """`tlrun [overrides]` and `tlrun -m [overrides]`; also Hydra's own --cfg, --info and -sc.

    began: time.time() when the command did (None = now).

    Returns the exit code of a sweep (1 if a job failed) or 0. Raises TlrunError, one sentence.
    """
    args = _parse(argv)
    flags = [argument for argument in argv if argument not in args.overrides]
    shows = args.cfg or args.info or args.shell_completion or args.hydra_help or args.config_path
    if args.cfg and args.multirun:
        raise ConfigError(
            "--cfg shows one configuration and -m is for several: leave -m out, and give one value "
            "for each key"
        )
    try:
        configs = [] if shows else check(args)
    except Exception as error:
        raise explain(error, search_folders(args.config_dir)) or error from None
    overrides = open_keys(args.overrides)
    if not shows and _is_sweep(args, overrides):
        overrides = keys_of_swept_groups(overrides)
    arguments = [*overrides, *flags]
    return on_nodes(
        configs, lambda: _through_hydra(arguments, args.config_dir, began), code_of_node_0
    )


def _through_hydra(arguments: list[str], config_dir: str | None, began: float | None) -> int:
    """A checked command; the exit code."""
    with sweep_state(began) as state:
        try:
            with _sys_argv(arguments), progress_bar(state):
                hydra.main(config_path=str(conf_dir()), config_name="config", **version_base())(
                    job
                )()
        except KeyboardInterrupt:  # in a launcher that waits for its processes, between two jobs
            if state.folder is not None and not state.dry_run:
                say(f"to go on with the sweep: tlrun resume {state.folder.absolute()}")
            raise
        except (Exception, SystemExit) as stop:
            return _end_early(state, stop, search_folders(config_dir))
        finally:
            if state.dry_run and state.folder is not None and state.stood is not None:
                discard_dry_run(state.folder, state.stood)
        if state.folder is not None:
            if state.dry_run:
                return 1 if state.failures else 0
            return close_sweep(state.folder, failed=len(state.failures))
        if state.failures:
            raise state.failures[0]
    return 0


def _end_early(state: SweepState, stop: BaseException, search: Sequence[Path]) -> int:
    """The exit code of a sweep that broke off, with jobs that still count; else what to raise."""
    error = state.problem or stop
    if isinstance(error, SystemExit):  # an interrupted sweep, Hydra's own help
        raise error
    explained = explain(error, search)
    if state.folder is not None and state.folder.is_dir() and runs_in(state.folder):
        report_error(explained or error)  # a launcher's process failed
        return close_sweep(state.folder, failed=1)
    if explained is None:
        raise error from None
    raise explained from error


def search_folders(config_dir: str | None) -> list[Path]:
    return [conf_dir(), *([Path(config_dir)] if config_dir else [])]


def check(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Compose and validate the command before any folder is made.

    Returns the configurations that this process itself will train, as far as they are known.
    """
    overrides = open_keys(args.overrides)
    is_sweep = _is_sweep(args, overrides)
    check_extras(overrides, multirun=is_sweep)
    check_folders(overrides)
    composed_variant = partial(
        compose, config_dir=args.config_dir, config_name=args.config_name or "config"
    )
    if args.config_dir and any(o.startswith("hydra.searchpath") for o in overrides):
        return []  # Hydra merges the two, `compose` cannot
    if is_sweep:
        overrides = [*preset_axes(overrides, composed_variant), *overrides]
    configs = []
    for variant in variants(overrides) if is_sweep else [overrides]:
        variant = another_pair(variant, overrides) if is_sweep else variant
        try:
            cfg = composed_variant(variant)
        except UnknownKey as error:
            raise name_options_without(error, overrides, composed_variant) or error from None
        check_installed(str(cfg.logger.name))
        if not is_sweep:  # its jobs check themselves, maybe on other machines
            check_built(cfg)
        configs.append(plain(cfg))
    return configs if trains_here(overrides, nodes_of(configs)) else []


def _is_sweep(args: argparse.Namespace, overrides: Sequence[str]) -> bool:
    return bool(args.multirun) or "hydra.mode=MULTIRUN" in overrides


def check_folders(overrides: Sequence[str]) -> None:
    """Raise ConfigError for `hydra.run.dir=` without a folder: the run would lie where one is."""
    for override in overrides:
        key, _, value = override.partition("=")
        folder = key.lstrip("+") in ("hydra.run.dir", "hydra.sweep.dir")
        if folder and value.strip(" \"'") in ("", "null"):
            raise ConfigError(f"{key}= is empty: name a folder, for example {key}=outputs/mine")


def check_built(cfg: DictConfig) -> None:
    """What the signatures of method, backbone, data, terms and balance say. Imports torch."""
    from tlrun.experiment.image_input import awaits_weights  # torch comes in here

    for group in ("method", "backbone", "terms", "balance"):
        check_targets(plain(cfg[group]), group)
    data = plain(cfg.data)
    for key in awaits_weights(data):  # another value by the time that anything is built
        del data[key]
    check_targets(data, "data")
    head = plain(cfg.backbone).get("head") or {}
    check_values(locate("tlrun.models.heads.Classifier"), head, "backbone.head")


def variants(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Of a sweep: its first job, then every swept value once beside that. A sum, not a product."""
    parsed = parse_overrides(overrides)
    axes = [values for values in map(_values, parsed) if values]
    yield [axis[0] for axis in axes]
    for axis in axes:
        for value in axis[1:VALUES_CHECKED]:
            yield [value if other is axis else other[0] for other in axes]


def preset_axes(overrides: Sequence[str], composed: Callable[..., DictConfig]) -> list[str]:
    """What the chosen experiment sweeps over by itself (`method=a,b`), of groups of which a key is
    typed: each of their options has to know it."""
    typed = [key_of(override) for override in overrides]
    chosen = [o for o, key in zip(overrides, typed, strict=True) if key == "experiment"]
    swept = any(override.is_sweep_override() for override in parse_overrides(chosen))
    searched = any(key.startswith(("search", "hydra/sweeper")) for key in typed)
    if not chosen or swept or searched:
        return []
    sweeper = composed(chosen, keep_hydra=True).hydra.sweeper
    if sweeper.get("trials") is not None:  # a search asks for values of its own
        return []
    return [
        f"{key}={values}"
        for key, values in (sweeper.get("params") or {}).items()
        if key not in typed and any(word.startswith(f"{key}.") for word in typed)
    ]


def name_options_without(
    error: UnknownKey,
    overrides: Sequence[str],
    composed_variant: Callable[[list[str]], DictConfig],
) -> ConfigError | None:
    """In a sweep over a group, say which of its options lack the key, or what each of them has;
    None where these are the same keys."""
    group = error.key.partition(".")[0]
    parsed = parse_overrides(overrides)
    swept = next((o for o in parsed if o.key_or_group == group and o.is_sweep_override()), None)
    if swept is None:
        return None
    firsts = [(override, values[0]) for override in parsed if (values := _values(override))]
    known: dict[bool, list[str]] = {True: [], False: []}
    valid: dict[str, Sequence[str]] = {}
    for option in _values(swept)[:VALUES_CHECKED]:
        name = option.partition("=")[2]
        try:
            composed_variant([option if override is swept else first for override, first in firsts])
            knows = True
        except UnknownKey as again:
            knows = again.key != error.key
            valid |= {} if knows else {name: again.valid}
        except ConfigError:
            continue  # for another reason
        known[knows].append(name)
    if not known[True]:
        return _keys_of_options(error.key, valid)
    without, with_key = ", ".join(known[False]), ", ".join(known[True])
    return ConfigError(
        f"unknown key '{error.key}' for {group}={without}: of this sweep only {with_key} "
        f"{'has' if len(known[True]) == 1 else 'have'} it; leave the others out, or the key"
    )


def _keys_of_options(key: str, valid: Mapping[str, Sequence[str]]) -> ConfigError | None:
    """The refusal of a key that none of some options has: theirs, and whose they are where not all
    have them. None where all have the same."""
    owners: dict[str, list[str]] = {}
    for option, names in valid.items():
        for name in names:
            owners.setdefault(name, []).append(option)
    if all(len(options) == len(valid) for options in owners.values()):
        return None
    near, _, listed = did_you_mean(key.rpartition(".")[2], owners).partition("Valid: ")
    marked = [
        f"{name} ({', '.join(owners[name])})" if len(owners.get(name, valid)) < len(valid) else name
        for name in listed.split(", ")
    ]
    return ConfigError(f"unknown key '{key}': {near}Valid: {', '.join(marked)}")


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if not override.is_discrete_sweep() or override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        return []  # intervals and globs are for the sweeper to expand
    values = list(override.sweep_string_iterator())
    if override.value_type == ValueType.RANGE_SWEEP:
        values = values[:1] + values[1:][-1:]  # numbers: what holds for both ends holds between
    return [f"{override.get_key_element()}={value}" for value in values]


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """By Hydra's own parser; ConfigError instead of its usage block."""
    parser = get_args_parser()
    parser.error = _command_error  # type: ignore[method-assign]
    return parser.parse_intermixed_args(list(argv))


def _command_error(message: str) -> NoReturn:
    raise ConfigError(f"{message}; see tlrun --help")


@contextmanager
def _sys_argv(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra reads the command from sys.argv, launchers too."""
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before


# ---- a job ----------------------------------------------------------------------------------


def job(cfg: DictConfig) -> None:
    """Hydra's task function: one run, or a job of a sweep."""
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode == RunMode.MULTIRUN:
        run_job(cfg, hydra_cfg)
        return
    state = current_sweep()
    assert state is not None  # a launcher's processes have jobs of sweeps alone
    try:
        config = resolve_and_check(cfg, hydra_cfg)
        with composed(plain(config), config_dir_of(hydra_cfg)):
            folder = Path(hydra_cfg.runtime.output_dir)
            typed = override_list(hydra_cfg.overrides.task)
            run = start.create_run_folder(config, folder, typed, stood=state.stood)
            if hydra_cfg.output_subdir is None:
                start.write_hydra(run, cfg, hydra_cfg)
            with start.nothing_left_if_refused(run):
                start.run_experiment(run, state.began)
    except Exception as error:
        state.failures.append(error)  # `train` raises it, as it is


def run_overrides(
    overrides: Sequence[str] = (), *, config_dir: str | Path | None = None
) -> dict[str, Any]:
    """`tlrun.run([...])`: the command `tlrun` from Python; the summary also names its "run_dir"."""
    cfg = compose(overrides, config_dir=config_dir, keep_hydra=True)
    folder, typed = str(cfg.hydra.run.dir), override_list(cfg.hydra.overrides.task)
    config = resolve_and_check(cfg, cfg.hydra)
    check_built(config)

    def train_here() -> dict[str, Any]:
        run = start.create_run_folder(config, folder, typed)
        try:
            with (
                start.nothing_left_if_refused(run),
                composed(plain(config), None if config_dir is None else str(config_dir)),
            ):
                return {**start.run_experiment(run), "run_dir": str(run.path)}
        except RecordedFault as recorded:
            fault = recorded.error
        raise fault  # the user's own code, with its own exception

    return on_nodes([plain(config)], train_here, summary_of_node_0)
