"""What a trained run leaves: test figures, predictions, features, the model, the summary."""

from __future__ import annotations

import hashlib
import logging
import resource
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict
from safetensors.torch import save

from tlrun.config.build import plain
from tlrun.config.hashes import config_hash
from tlrun.config.saved import load_config
from tlrun.data.problems.trained import check_unchanged
from tlrun.engine import checkpoint
from tlrun.engine.durations import total_steps
from tlrun.engine.optimizers import learning_rate_factor, merged
from tlrun.engine.precision import autocast
from tlrun.errors import ConfigError, RunError
from tlrun.evaluate.divergence import failure
from tlrun.evaluate.figures import Figures, oracle_key, with_unit
from tlrun.evaluate.selection import rules, sees_target_labels
from tlrun.experiment.assemble import open_session
from tlrun.experiment.session import Session
from tlrun.experiment.wall_time import wall_seconds
from tlrun.files.atomic import write_atomic
from tlrun.run_folder.environment import collect_environment, with_history
from tlrun.run_folder.json_file import Damaged
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)


def conclude(session: Session, into: RunDir | None = None) -> dict[str, Any]:
    """Evaluate the selected and the last weights on the test sets and write what the run leaves.

    into: another folder to write to. Raises RunError if the checkpoints are gone.
    """
    run_dir = session.run_dir
    last = checkpoint.load_last(run_dir.checkpoints)
    if last is None:
        raise RunError(f"{run_dir.checkpoints} holds no checkpoint any more: there is nothing left")
    rows = run_dir.read_metrics()
    session.load(last)
    last_figures, _ = _test(session)
    selected = session.load_selected()
    figures, found = _test(session)
    into = into or run_dir
    session.evaluator.write(into, found)
    write_model(into, session)
    summary = summarise(session, rows, last, selected["step"], figures, last_figures)
    summary["files"] = into.left()
    into.write_json(into.summary, summary)
    return summary


def _test(session: Session) -> tuple[Figures, Any]:
    """The test figures of the loaded weights, in the precision of the run.

    Autocast must not stay open over a `load_state_dict`: it caches converted weights, and the
    second test would run with the first one's.
    """
    with torch.no_grad(), autocast(session.precision, session.device):
        return session.evaluator.test(session.net)


def summarise(
    session: Session,
    rows: list[dict[str, Any]],
    last: dict[str, Any],
    selected_step: int,
    selected_figures: Figures,
    last_figures: Figures,
) -> dict[str, Any]:
    """summary.json: stable keys, other tools read them. rows: of metrics.jsonl."""
    cfg, counters = session.cfg, last["counters"]
    chances = {key: asdict(chance) for key, chance in session.evaluator.chances().items()}
    failed = failure(rows, session.data.num_classes, chances)
    rows = [row for row in rows if row.get("split") == "eval"]
    resumed_with = session.run_dir.read_status().get("resumed_with")
    oracle = session.choose(rows, "oracle") or {}
    # One net has one figure: in episodes the closing test is longer than those of the rows.
    by_step = {last["step"]: last_figures, selected_step: selected_figures}
    tested: Mapping[str, Any] = by_step.get(oracle.get("step"), {})
    targets = dict.fromkeys(("target_test/accuracy", session.evaluator.headline))
    seconds = float(counters["train_seconds"])
    chose = session.selected_path.stem == cfg["select"]["name"]
    why_last = None if chose else session.why_last()
    return {
        "schema": 1,
        "status": "completed",
        "method": cfg["choices"]["method"],
        "data": cfg["data"]["name"],
        "backbone": cfg["backbone"]["name"],
        "seed": cfg["seed"],
        "steps": last["step"],
        "updates": counters["updates"],
        "images_seen": counters["images_seen"],
        "config_hash": config_hash(cfg),
        "peak_learning_rate": peak_learning_rate(session),
        "target_labels_seen": session.data.target_labels_seen,
        "selection_rule": cfg["select"]["name"],
        "selection_fell_back": why_last is not None,
        **({"selection_why_last": why_last} if why_last else {}),
        "selection_guard": asdict(session.guard),
        "selection_saw_target_labels": sees_target_labels(cfg["select"]["name"]),
        "training_failure": failed and asdict(failed),
        "chance": chances,
        "headline": session.evaluator.headline,
        "figures": selected_figures.about(),
        "selected": {"step": selected_step, **selected_figures},
        "last": {"step": last["step"], **last_figures},
        "oracle": {
            "step": oracle.get("step"),
            **{key: tested.get(key, oracle.get(oracle_key(key))) for key in targets},
        },
        **session.evaluator.history(rows),
        "parameters": sum(p.numel() for p in session.net.parameters()),
        "train_seconds": round(seconds, 2),
        "wall_seconds": wall_seconds(counters, session.began),
        "images_per_second": round(counters["images_seen"] / max(seconds, 1e-9), 1),
        "peak_memory_mb": peak_memory_mb(session.device),
        **({"resumed_with": resumed_with} if resumed_with else {}),
    }


def peak_learning_rate(session: Session) -> float | None:
    """The largest base learning rate of any step; None if no phase had one."""
    peaks = []
    for phase in session.phases:
        total = total_steps(phase, session.cfg["trainer"], session.data)
        schedule = merged(session.cfg["schedule"], phase.schedule)
        factors = (learning_rate_factor(schedule, step, total) for step in range(total))
        lr = float(merged(session.cfg["optimizer"], phase.optimizer)["lr"])
        peaks.append(lr * max(factors, default=0.0))
    return max(peaks, default=0.0) or None


def write_model(run_dir: RunDir, session: Session) -> None:
    """model.safetensors: the loaded weights, for use elsewhere."""
    state = {
        f"{name}.{key}": value.detach().cpu().contiguous().clone()
        for name, part in session.net.parts.items()
        for key, value in part.state_dict().items()
    }
    # one key of metadata: safetensors writes several in random order, and equal runs should be
    # equal files
    write_atomic(run_dir.model, save(state, metadata={"format": "pt"}))


def describe(session: Session) -> None:
    """What predict and a reader need to know of data and machine, before training starts."""
    run_dir = session.run_dir
    goes_on = (run_dir.checkpoints / "last.pt").is_file()
    if goes_on and run_dir.label_space.is_file():
        try:
            check_unchanged(session.data, run_dir.read_label_space())
        except Damaged as error:
            log.warning("%s", error)
    run_dir.write_json(run_dir.label_space, session.data.label_space())
    found = collect_environment(session.data.info(), session.device)
    if goes_on and run_dir.environment.is_file():
        try:
            found = with_history(found, run_dir.read_json(run_dir.environment))
        except Damaged as error:
            log.warning("%s; it is written anew, without what it said of the start", error)
    elif origin := session.initial_weights.origin():
        found["init"] = origin
    run_dir.write_json(run_dir.environment, found)


def peak_memory_mb(device: torch.device) -> float:
    """GPU: largest allocation. CPU: largest resident size of this process so far."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def evaluate(run_path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """`tlrun evaluate RUN_DIR [data=...]`: the selected weights on the test sets of these data.

    Writes RUN_DIR/evaluations/<data>.json, prints the figures and returns them; the run itself
    stays as it is.
    """
    run_dir = RunDir.open(run_path)
    cfg = load_config(run_dir.config, list(overrides))
    if any(override.startswith("data") for override in overrides):
        prepare_as_trained(cfg, run_dir, overrides)
    check_kept(run_dir, str(cfg.select.name))
    if not run_dir.label_space.is_file():
        raise ConfigError(f"{run_dir.path} has no label_space.json: nothing was trained in it yet")
    space = run_dir.read_label_space()
    session = open_session(run_dir, plain(cfg), space=space)
    session.build_all()
    selected = session.load_selected()
    figures, _ = _test(session)
    result = {
        "data": session.data.name,
        "step": selected["step"],
        "overrides": list(overrides),
        "headline": session.evaluator.headline,
        "figures": figures.about(),
        **figures,
    }
    print(
        f"{session.data.name}, weights of step {selected['step']} "
        f"(select={session.cfg['select']['name']})"
    )
    for figure in figures.stated.values():
        if isinstance(figure.value, float):
            half = "" if figure.ci95 is None else f" ± {with_unit(figure.ci95, figure.kind.unit)}"
            print(f"  {figure.key:<32} {with_unit(figure.value, figure.kind.unit)}{half}")
    path = run_dir.path / "evaluations" / f"{session.data.name}{_mark(overrides)}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        run_dir.write_json(path, result)
    except OSError as error:
        log.warning("tlrun: cannot write %s (%s): the figures are only above", path, error.strerror)
    else:
        print(f"written to {path}")
    return result


def _mark(overrides: Sequence[str]) -> str:
    """What tells an evaluation from others on data of the same name."""
    further = sorted(override for override in overrides if not override.startswith("data="))
    return f"_{hashlib.sha256(repr(further).encode()).hexdigest()[:6]}" if further else ""


def check_kept(run_dir: RunDir, rule: str) -> None:
    """Refuse a rule that left no checkpoint, where the last step would be taken for its choice.

    Not the run's own rule: where its guard let no evaluation pass, the summary too has the last.
    """
    trained = load_config(run_dir.config)
    known = rules()
    kept = sorted(path.stem for path in run_dir.checkpoints.glob("*.pt") if path.stem in known)
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
    """Other data reach the net with the size and normalisation it was trained on, unless typed."""
    saved = load_config(run_dir.config).data
    trained = {key: saved[key] for key in ("size", "channels", "normalize") if key in saved}
    typed = {override.partition("=")[0] for override in overrides}
    with open_dict(cfg):
        cfg.data.update({k: v for k, v in trained.items() if f"data.{k}" not in typed})
