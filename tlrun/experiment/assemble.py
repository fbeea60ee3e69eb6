"""From a config to a `Session`: all of it is built here in order, and every rule of `checks` asked.

Nothing here trains.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tlrun.config.build import build
from tlrun.config.one_set import has_source
from tlrun.config.schema import INITS
from tlrun.config.weight_files import is_weight_file
from tlrun.data.pipeline.streams import images_per_pass
from tlrun.data.problems.label_space import LabelSpace
from tlrun.data.problems.options import Labels, Options
from tlrun.data.problems.pair import Data, build_data
from tlrun.data.problems.trained import as_trained, check_columns, with_statistics
from tlrun.engine import checkpoint
from tlrun.engine.distributed import Endpoint, Process
from tlrun.engine.optimizers import merged
from tlrun.engine.precision import resolve_device, resolve_precision
from tlrun.errors import ConfigError
from tlrun.evaluate.evaluators.class_figures import Evaluator, evaluator_of
from tlrun.experiment import checks
from tlrun.experiment.initial_weights import InitialWeights
from tlrun.experiment.session import Session
from tlrun.machine import assigned_gpu
from tlrun.methods.balances.base import Balance
from tlrun.methods.balances.equal import Equal
from tlrun.methods.base import Method, Phase, Term
from tlrun.methods.build import build_method
from tlrun.models.build import build_classifier, build_net
from tlrun.models.net import PUBLISHED_HEAD, Net
from tlrun.process import prepare_process
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)

Config = dict[str, Any]


def open_session(
    run_dir: RunDir,
    cfg: Config,
    rank: int = 0,
    world: int = 1,
    *,
    space: LabelSpace | None = None,
    began: float | None = None,
    endpoint: Endpoint | None = None,
) -> Session:
    """Build all that `cfg` describes. Raises ConfigError or DataError before any training.

    space: that of a run that is only evaluated: the data come under its classes and
    columns, and the target's training images are left out where nothing else needs them.
    began: time.time() when this sitting began (None = now). endpoint: where the processes of
    several machines meet; those of one meet at a file.
    """
    local_world = min(world, int(cfg["trainer"]["devices"]))  # processes on this machine
    prepare_process(cfg, rank % local_world, local_world)
    device = device_of(cfg, rank % local_world, world)
    precision = resolve_precision(str(cfg["trainer"]["precision"]), device)
    checks.check_rules(cfg)
    trained = (run_dir.checkpoints / "last.pt").exists()  # what it started from is needed no more
    method = build_method(cfg)
    checks.check_init(str(cfg["init"]), method, trained)
    data = load_data(cfg, method, trained, space)
    phases, initial_weights = plan_phases(cfg, method, data)
    if space is None:
        checks.check_streams(data, phases)
    evaluator = build_evaluator(cfg, method, data, device)
    net = build_fresh_net(cfg, data, initial_weights, trained)
    rendezvous = endpoint or run_dir.path / ".rendezvous"
    process = Process() if world == 1 else Process.join(rank, world, rendezvous, device)
    terms = build_terms(cfg, method, phases)
    phases = [with_views(phase, terms) for phase in phases]
    if wants_published_head(method, phases, terms):
        head = saved_head(run_dir) if trained else published_head(cfg, initial_weights, net, terms)
        net.add(PUBLISHED_HEAD, head)
    if space is None:
        checks.check_mixing(cfg, method, data, phases, terms)
    balance = build_balance(cfg, method)
    tasks = {task.name: task.kind for task in data.tasks.values()}
    return Session(
        cfg=cfg,
        run_dir=run_dir,
        data=data,
        method=method,
        terms=terms,
        balance=balance,
        learned_balance=balance.module(tasks) if balance else None,
        phases=phases,
        net=net,
        evaluator=evaluator,
        device=device,
        precision=precision,
        process=process,
        initial_weights=initial_weights,
        began=time.time() if began is None else began,
    )


def device_of(cfg: Config, rank: int, world: int) -> torch.device:
    """The device of this process: of several, each has a GPU of its own. rank: on its machine."""
    device = resolve_device(str(cfg["trainer"]["device"]))
    if world > 1 and device.type == "cuda":
        gpu = assigned_gpu(rank)
        device = torch.device("cuda", rank if gpu is None else gpu)
        torch.cuda.set_device(device)
    return device


def load_data(cfg: Config, method: Method, trained: bool, space: LabelSpace | None) -> Data:
    """The data, checked against the method, under the classes and columns of `space`."""
    labels: Labels = cfg["target_labels"]
    if labels == "auto" and method.requirements.source_labels:
        labels = method.requirements.target_labels  # type: ignore[assignment]
    checks.check_target_labels(labels, method)
    tested = space is not None and method.requirements.kind == "class"
    if space is None:
        checks.check_has_source(cfg, method)
        known = None
    else:
        known = space.source_classes if has_source(cfg["data"]) else space.classes
    origin = space or origin_space(method.init, trained)
    data = build_data(
        cfg["data"],
        Options(
            seed=int(cfg["seed"]),
            target_labels="none" if tested else labels,
            target_val_labels=cfg["target_val_labels"],
            source_labels=method.requirements.source_labels,
            target_images="none" if tested else str(cfg["target_images"]),
            shared_classes=method.requirements.shared_classes,
            classes=known,
            feature_names=None if origin is None else origin.feature_names,
        ),
    )
    checks.check_kind(method, data)
    checks.check_sources(method, data)
    checks.check_open_set(method, data)
    if space is None:
        checks.check_learns_classes(method, data)
    if origin is not None:
        check_columns(data, origin)
    if space is not None:
        data = as_trained(data, space)
        if cfg["data"].get("mean") is None:
            data = with_statistics(data, space.preprocess)
    return data


def origin_space(init: str, trained: bool) -> LabelSpace | None:
    """The label space of the run whose weights this one starts from, if there is one."""
    if init in INITS or trained:
        return None
    origin = RunDir.open(init)
    return LabelSpace.from_json(origin.read_label_space()) if origin.label_space.is_file() else None


def plan_phases(cfg: Config, method: Method, data: Data) -> tuple[list[Phase], InitialWeights]:
    """The method's phases with the changes of `phases.*`, and what `transfer.*` freezes in them."""
    phases = [override_phase(phase, cfg["phases"]) for phase in method.phases(data)]
    if not cfg["terms"]:  # none joins: a method need not make what only they look at
        phases = [replace(phase, terms=False) for phase in phases]
    initial_weights = InitialWeights.of(method.init, cfg["transfer"], phases, cfg["backbone"])
    phases = [initial_weights.freeze_in(index, phase) for index, phase in enumerate(phases)]
    checks.check_phase_names(cfg, phases)
    return phases, initial_weights


def override_phase(phase: Phase, overrides: Mapping[str, Any]) -> Phase:
    """Apply `phases.<name>.{steps,optimizer,schedule,frozen}` from the command line."""
    changes = dict(overrides.get(phase.name) or {})
    for key in ("optimizer", "schedule"):
        if key in changes:
            base = getattr(phase, key)
            changes[key] = (
                merged(base, changes[key]) if "name" in base else {**base, **changes[key]}
            )
    if "frozen" in changes:
        changes["frozen"] = tuple(changes["frozen"])
        freed = [stage for stage in phase.frozen if stage not in changes["frozen"]]
        if freed:
            log.warning(
                "phases.%s.frozen replaces the method's own: %s will train",
                phase.name,
                ", ".join(freed),
            )
    return replace(phase, **changes)


def build_evaluator(cfg: Config, method: Method, data: Data, device: torch.device) -> Evaluator:
    evaluator = evaluator_of(data)(
        data,
        method,
        device,
        batch_size=images_per_pass(int(cfg["evaluate"]["batch_size"]), data.input_shape),
        max_images=int(cfg["select"]["max_images"]),
        seed=int(cfg["seed"]),
        target_test=bool(cfg["evaluate"]["target_test"]),
        source_images=cfg["evaluate"].get("source_images"),  # runs of before have no such key
    )
    checks.check_task_rules(cfg, evaluator)
    return evaluator


def build_fresh_net(cfg: Config, data: Data, initial_weights: InitialWeights, trained: bool) -> Net:
    """The net before its first phase; random weights come from the seed."""
    torch.manual_seed(int(cfg["seed"]))
    weights = None if trained else initial_weights.weights(cfg["backbone"].get("weights"))
    initial_weights.pretrained = weights is not None
    initial_weights.file = weights if is_weight_file(weights) else None
    return build_net({"backbone": {**cfg["backbone"], "weights": weights}}, data.input_shape)


def build_terms(cfg: Config, method: Method, phases: list[Phase]) -> dict[str, Term]:
    terms: dict[str, Term] = {
        name: build(spec, f"terms.{name}") for name, spec in cfg["terms"].items()
    }
    checks.check_weight_decay(cfg, phases, terms)
    checks.check_one_target(method, terms)
    checks.check_shown(method, phases, terms)
    checks.check_frozen_statistics(cfg, terms)
    return terms


def with_views(phase: Phase, terms: Mapping[str, Term]) -> Phase:
    """The phase with the further views of its images that its terms look at."""
    views = dict(phase.views)
    for term in terms.values() if phase.terms else ():
        for stream, names in term.views.items():
            if stream in phase.streams:
                views[stream] = tuple(dict.fromkeys((*views.get(stream, ()), *names)))
    return replace(phase, views=views)


def wants_published_head(method: Method, phases: list[Phase], terms: Mapping[str, Term]) -> bool:
    """Whether a term asks for the head of published weights where these stand for the source."""
    carries = method.init == "pretrained" and any(phase.transfer for phase in phases)
    return carries and any(term.published_head for term in terms.values())


def published_head(
    cfg: Config, initial_weights: InitialWeights, net: Net, terms: Mapping[str, Term]
) -> nn.Linear:
    """The head that the weights of the backbone came with. Raises ConfigError without one."""
    weights = initial_weights.weights(cfg["backbone"].get("weights"))
    head = build_classifier(cfg["backbone"], weights, net.backbone)
    if head is None:
        name = next(name for name, term in terms.items() if term.published_head)
        backbone = cfg["backbone"].get("name") or cfg["backbone"]["_target_"]
        raise ConfigError(
            f"terms=[{name}] needs the head that the weights were learned with, and "
            f"{weights if is_weight_file(weights) else f'those of {backbone}'} come without one "
            "linear layer of classes: choose weights that have one, init=source, or init=RUN_DIR"
        )
    return head


def saved_head(run_dir: RunDir) -> nn.Linear:
    """A layer of the size of the published head in the last checkpoint, which fills it."""
    saved = checkpoint.load_last(run_dir.checkpoints)
    assert saved is not None
    head = saved["parts"][PUBLISHED_HEAD]
    classes, features = head["weight"].shape
    with torch.random.fork_rng(devices=[]):
        return nn.Linear(features, classes, bias="bias" in head)


def build_balance(cfg: Config, method: Method) -> Balance | None:
    """How task losses are combined; None = the plain sum."""
    balance: Balance = build(cfg["balance"], "balance")
    if isinstance(balance, Equal):
        return None
    checks.check_balance(cfg, method, balance)
    return balance
