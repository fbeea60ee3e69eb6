"""What a trained run leaves: test figures, predictions, features, the model, the summary."""

from __future__ import annotations

import logging
import resource
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from safetensors.torch import save

from tlrun.config.data_names import data_title
from tlrun.config.domains import domains_of
from tlrun.config.hashes import config_hash
from tlrun.data.problems.label_space import LabelSpace
from tlrun.data.problems.trained import check_unchanged
from tlrun.engine import checkpoint
from tlrun.engine.durations import total_steps
from tlrun.engine.optimizers import learning_rate_factor, merged
from tlrun.errors import RunError
from tlrun.evaluate.divergence import failure
from tlrun.evaluate.figures import Figures, oracle_key
from tlrun.evaluate.selection import sees_target_labels
from tlrun.experiment.images import write_images
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
    last_figures, details = session.test()
    selected, figures = session.load_selected(), last_figures
    if any(selected[key] != last[key] for key in ("phase", "step")):
        figures, details = session.test()
    into = into or run_dir
    session.evaluator.write(into, details)
    write_images(session, into, details)
    write_model(into, session)
    summary = summarise(session, rows, last, selected["step"], figures, last_figures)
    summary["files"] = into.left()
    into.write_json(into.summary, summary)
    return summary


def summarise(
    session: Session,
    rows: list[dict[str, Any]],
    last: dict[str, Any],
    selected_step: int,
    selected_figures: Figures,
    last_figures: Figures,
) -> dict[str, Any]:
    """summary.json: stable keys, other tools read them. rows: of metrics.jsonl."""
    cfg, domains = session.cfg, domains_of(session.cfg)
    chances = {key: asdict(chance) for key, chance in session.evaluator.chances().items()}
    failed = failure(rows, session.data.num_classes, chances)
    rows = [row for row in rows if row.get("split") == "eval"]
    # One net has one figure: in episodes the closing test is longer than those of the rows.
    tested = {last["step"]: last_figures, selected_step: selected_figures}
    resumed_with = session.run_dir.read_status().get("resumed_with")
    return {
        "schema": 1,
        "status": "completed",
        "method": cfg["choices"]["method"],
        "terms": list(cfg["terms"]),
        "data": cfg["data"]["name"],
        "data_title": data_title(cfg),
        "domains": {"source": list(domains.source), "target": list(domains.target)},
        "backbone": cfg["backbone"]["name"],
        "seed": cfg["seed"],
        "steps": last["step"],
        "updates": last["counters"]["updates"],
        "images_seen": last["counters"]["images_seen"],
        "config_hash": config_hash(cfg),
        "peak_learning_rate": peak_learning_rate(session),
        "target_labels_seen": session.data.target_labels_seen,
        **_selection(session),
        "training_failure": failed and asdict(failed),
        "chance": chances,
        "headline": session.evaluator.headline,
        "figures": selected_figures.about(),
        "selected": {"step": selected_step, **selected_figures},
        "last": {"step": last["step"], **last_figures},
        "oracle": _oracle(session, rows, tested),
        **session.evaluator.history(rows),
        "parameters": sum(p.numel() for p in session.net.parameters()),
        **_cost(session, last["counters"]),
        **({"resumed_with": resumed_with} if resumed_with else {}),
    }


def _selection(session: Session) -> dict[str, Any]:
    """How the weights were selected."""
    rule = session.cfg["select"]["name"]
    why_last = None if session.selected_path.stem == rule else session.why_last()
    return {
        "selection_rule": rule,
        "selection_fell_back": why_last is not None,
        **({"selection_why_last": why_last} if why_last else {}),
        "selection_guard": asdict(session.guard),
        "selection_saw_target_labels": sees_target_labels(rule),
    }


def _oracle(
    session: Session, rows: list[dict[str, Any]], tested: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """The best evaluation by test labels: its figures of the closing test, else of its row."""
    row = session.choose(rows, "oracle") or {}
    figures = tested.get(row.get("step", -1), {})
    headlines = dict.fromkeys(("target_test/accuracy", session.evaluator.headline))
    return {
        "step": row.get("step"),
        **{key: figures.get(key, row.get(oracle_key(key))) for key in headlines},
    }


def _cost(session: Session, counters: Mapping[str, Any]) -> dict[str, Any]:
    """Time and memory."""
    seconds = float(counters["train_seconds"])
    return {
        "train_seconds": round(seconds, 2),
        "wall_seconds": wall_seconds(counters, session.began),
        "images_per_second": round(counters["images_seen"] / max(seconds, 1e-9), 1),
        "peak_memory_mb": peak_memory_mb(session.device),
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


def write_surroundings(session: Session) -> None:
    """What predict and a reader need to know of data and machine, before training starts."""
    run_dir = session.run_dir
    goes_on = (run_dir.checkpoints / "last.pt").is_file()
    if goes_on and run_dir.label_space.is_file():
        try:
            check_unchanged(session.data, LabelSpace.from_json(run_dir.read_label_space()))
        except Damaged as error:
            log.warning("%s", error)
    run_dir.write_json(run_dir.label_space, session.data.label_space.to_json())
    environment = collect_environment(session.data.info(), session.device)
    if goes_on and run_dir.environment.is_file():
        try:
            environment = with_history(environment, run_dir.read_json(run_dir.environment))
        except Damaged as error:
            log.warning("%s; it is written anew, without what it said of the start", error)
    elif origin := session.initial_weights.origin():
        environment["init"] = origin
    run_dir.write_json(run_dir.environment, environment)


def peak_memory_mb(device: torch.device) -> float:
    """GPU: largest allocation. CPU: largest resident size of this process so far."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
