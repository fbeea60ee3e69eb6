"""`tlrun evaluate RUN_DIR`: the selected weights of a run on test sets, its own or other ones."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from tlrun.config.build import plain
from tlrun.config.data_names import data_title
from tlrun.config.one_set import OWN_FILES
from tlrun.config.overrides import key_of
from tlrun.config.saved import load_config
from tlrun.data.examples.fit import BILINEAR
from tlrun.data.problems.label_space import LabelSpace
from tlrun.data.sets.domain_table import has_test
from tlrun.errors import ConfigError
from tlrun.evaluate.figures import Figure, Figures, finite, with_unit
from tlrun.evaluate.selection import rules
from tlrun.experiment.assemble import open_session
from tlrun.experiment.session import Session
from tlrun.experiment.trained_images import refuse_trained_images
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)

TRAINING_GROUPS = ("optimizer", "schedule", "balance", "phases", "logger")
TRAINING_KEYS = frozenset(
    f"trainer.{key}"
    for key in (
        *("steps", "epochs", "accumulate", "grad_clip", "sync_batch_norm"),
        *("log_every", "eval_every", "checkpoint_every"),
    )
)
CLASSES_SHOWN = 40  # of more the lowest; the file has all


def evaluate(run_path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """`tlrun evaluate RUN_DIR [data=...]`: the selected weights on the test sets of these data.

    Writes RUN_DIR/evaluations/<data>.json, prints the figures and returns them; the run itself
    stays as it is.
    """
    run_dir = RunDir.open(run_path)
    refuse_unread(overrides)
    cfg = load_config(run_dir.config, list(overrides))
    if any(override.startswith("data") for override in overrides):
        prepare_as_trained(cfg, run_dir, overrides)
    check_rule_was_kept(run_dir, str(cfg.select.name))
    if not run_dir.label_space.is_file():
        raise ConfigError(f"{run_dir.path} has no label_space.json: nothing was trained in it yet")
    space = LabelSpace.from_json(run_dir.read_label_space())
    session = open_session(run_dir, plain(cfg), space=space)
    refuse_trained_images(run_dir, session.cfg, session.data, overrides)
    session.build_all()
    selected = session.load_selected()
    figures, _ = session.test()
    sizes = counts(session, figures)
    result = {
        "data": session.data.name,
        "step": selected["step"],
        "overrides": list(overrides),
        "headline": session.evaluator.headline,
        "figures": figures.about(),
        "examples": sizes,
        **figures,
    }
    _print(session, int(selected["step"]), figures, sizes)
    path = run_dir.path / "evaluations" / f"{session.data.name}{_mark(overrides)}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        run_dir.write_json(path, result)
    except OSError as error:
        log.warning("tlrun: cannot write %s (%s): the figures are only above", path, error.strerror)
    else:
        print(f"written to {path}")
    return result


def refuse_unread(overrides: Sequence[str]) -> None:
    """ConfigError for a key of training alone: trained weights would be tested just the same."""
    for override in overrides:
        key = key_of(override)
        if key in TRAINING_KEYS or key.partition(".")[0] in TRAINING_GROUPS:
            raise ConfigError(
                f"{override}: the run is trained, and only training reads {key}; leave it out, or "
                "train a run with it"
            )


def counts(session: Session, figures: Figures) -> dict[str, dict[str, Any]]:
    """{role: {"count", "count_by_class"}} of the sets that were tested; no classes without labels.

    {} for data whose test is not of a set (episodes, several tasks).
    """
    if session.data.kind != "class":
        return {}
    tested = dict.fromkeys(key.partition("/")[0] for key in figures.stated)
    sets = {role: examples for role in tested if (examples := session.data.role(role)) is not None}
    return {
        role: {"count": len(examples), "count_by_class": examples.class_counts()}
        for role, examples in sets.items()
    }


def _print(
    session: Session, step: int, figures: Figures, sizes: Mapping[str, Mapping[str, Any]]
) -> None:
    """The sizes of the sets, and the figures with their intervals, at last those of each class."""
    rule = session.cfg["select"]["name"]
    title = data_title(session.cfg) or session.data.name
    print(f"{title}, weights of step {step} (select={rule})")
    for role, size in sizes.items():
        unlabelled = "" if size["count_by_class"] else ", without labels: no figures"
        print(f"  {role:<32} {size['count']:,} examples{unlabelled}")
    by_class = []
    for figure in figures.stated.values():
        if isinstance(figure.value, float):
            half = "" if figure.ci95 is None else f" ± {with_unit(figure.ci95, figure.kind.unit)}"
            print(f"  {figure.key:<32} {with_unit(figure.value, figure.kind.unit)}{half}")
        elif isinstance(figure.value, Mapping):
            by_class.append(figure)
    for figure in by_class:
        _print_classes(figure, sizes.get(figure.key.partition("/")[0], {}))


def _print_classes(figure: Figure, size: Mapping[str, Any]) -> None:
    """A line per class that has examples, the lowest figures first where there are many."""
    number = size.get("count_by_class") or {}
    tested = {name: v for name, v in figure.value.items() if finite(v) is not None}
    shown = list(tested)
    if len(shown) > CLASSES_SHOWN:
        shown = sorted(tested, key=lambda name: tested[name])[:CLASSES_SHOWN]
    print(f"  {figure.key}")
    for name in shown:
        of = f"  of {number[name]:,}" if name in number else ""
        print(f"    {name:<30} {with_unit(tested[name], figure.kind.unit)}{of}")
    if len(shown) < len(tested):
        print(f"    (the {len(shown)} lowest of {len(tested)} classes)")


def _mark(overrides: Sequence[str]) -> str:
    """What tells an evaluation from others on data of the same name."""
    further = sorted(override for override in overrides if not override.startswith("data="))
    return f"_{hashlib.sha256(repr(further).encode()).hexdigest()[:6]}" if further else ""


def check_rule_was_kept(run_dir: RunDir, rule: str) -> None:
    """Refuse a rule that left no checkpoint, where the last step would be taken for its choice.

    Not the run's own rule: where its guard let no evaluation pass, the summary too has the last.
    """
    trained = load_config(run_dir.config)
    names = rules()
    kept = sorted(path.stem for path in run_dir.checkpoints.glob("*.pt") if path.stem in names)
    if rule in kept or rule == trained.select.name:
        return
    if rule in trained.selectors and run_dir.read_status().get("state") != "completed":
        raise ConfigError(
            f"select={rule} chooses at the end of training, and this run has not come to it: "
            f"tlrun resume {run_dir.path}"
        )
    raise ConfigError(
        f"this run kept no checkpoint for select={rule}; it kept {', '.join(kept) or 'none'}: "
        + (
            "no evaluation passed that rule's guard, train with a lower select.source_floor or "
            "select.min_effective_classes"
            if rule in trained.selectors
            else f"choose one of these, or train with selectors=[{rule}]"
        )
    )


def prepare_as_trained(cfg: DictConfig, run_dir: RunDir, overrides: Sequence[str]) -> None:
    """Other data reach the net with the size, interpolation and normalisation it was trained on,
    unless typed, and files of one's own and domains of a set that it was not trained on are tested
    whole, unless the set has a published test."""
    saved = load_config(run_dir.config).data
    trained = {key: saved[key] for key in ("size", "channels", "normalize") if key in saved}
    if "interpolation" in cfg.data:
        trained["interpolation"] = saved.get("interpolation", BILINEAR)
    typed = {override.partition("=")[0] for override in overrides}
    with open_dict(cfg):
        cfg.data.update({k: v for k, v in trained.items() if f"data.{k}" not in typed})
        for domain in ("source", "target"):
            if tests_whole(cfg.data.get(domain), saved.get(domain)) and not typed & {
                f"data.{domain}.{key}" for key in ("test_fraction", "transductive")
            }:
                cfg.data[domain].transductive = True
        of_another = "data.target" in typed and cfg.data.get("target") != saved.get("target")
        if of_another and "transductive" in cfg.data and "data.transductive" not in typed:
            cfg.data.transductive = not has_test(cfg.data.get("set"))


def tests_whole(block: Any, trained: Any) -> bool:
    """Whether nothing need be cut off for a test: other files than those of `trained`.

    A test set of their own remains the test (`transductive` of `data/sets/folder.py`).
    """
    if not isinstance(block, Mapping) or "transductive" not in block:
        return False
    keys = OWN_FILES.get(str(block.get("_target_")), ())
    known = trained if isinstance(trained, Mapping) else {}
    return any(block.get(key) not in (None, known.get(key)) for key in keys)
