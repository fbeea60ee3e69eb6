"""A `Session` is all that a config describes, built and put together: data, method, net, evaluator.

`run.py` uses it to train and to evaluate; nothing here trains.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tlrun.config.build import build
from tlrun.config.hashes import config_hash
from tlrun.config.schema import INITS
from tlrun.data.problems.pair import UNKNOWN, Data, Labels, build_data
from tlrun.data.problems.trained import as_trained, check_columns, source_classes, with_statistics
from tlrun.engine import checkpoint
from tlrun.engine.distributed import Process
from tlrun.engine.optimizers import merged
from tlrun.engine.precision import resolve_device, resolve_precision
from tlrun.engine.trainer import Loop
from tlrun.errors import ConfigError
from tlrun.evaluate.evaluators.classes import Evaluator, evaluator_of
from tlrun.evaluate.selection import (
    TASK,
    candidates,
    check_rule,
    min_effective_classes,
    why_none,
)
from tlrun.experiment.initial_weights import Start
from tlrun.machine import assigned_gpu
from tlrun.methods.balances.base import PART, Balance
from tlrun.methods.balances.equal import Equal
from tlrun.methods.base import Method, Phase, Term
from tlrun.models.batch_norm import convert
from tlrun.models.build import batch_norm_mode, build_net
from tlrun.models.net import Net
from tlrun.models.transfer import print_table
from tlrun.process import prepare_process
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)


@dataclass
class Session:
    """What a run works with. `loop()` trains it; `load()` puts a checkpoint into the net."""

    cfg: dict[str, Any]
    run_dir: RunDir
    data: Data
    method: Method
    terms: dict[str, Term]
    balance: Balance | None
    learned_balance: torch.nn.Module | None  # what the balance learns
    phases: list[Phase]
    net: Net
    evaluator: Evaluator
    device: torch.device
    precision: str
    process: Process
    start: Start
    began: float = field(default_factory=time.time)  # when this sitting began

    @property
    def guard(self) -> dict[str, Any]:
        """The limits as applied, arguments of the functions of `selection`.

        The floor on the source applies where the last phase trains on it.
        """
        select, last = self.cfg["select"], self.phases[-1]
        trains_on_source = not {"source", *self.data.sources}.isdisjoint(last.streams)
        return {
            "num_classes": self.data.num_classes,
            "source_floor": float(select["source_floor"]) if trains_on_source else 0.0,
            "min_effective_classes": min_effective_classes(
                select["min_effective_classes"], self.cfg["data"].get("label_spaces", "shared")
            ),
        }

    def candidates(self, rows: list[dict[str, Any]], rule: str) -> list[dict[str, Any]]:
        """Rows that a rule may still choose, its choice so far first."""
        return candidates(self._competing(rows, rule), rule, **self.guard)  # type: ignore[return-value]

    def choose(self, rows: list[dict[str, Any]], rule: str) -> dict[str, Any] | None:
        """The row that a rule picks."""
        return next(iter(self.candidates(rows, rule)), None)

    def _competing(self, rows: list[dict[str, Any]], rule: str) -> list[dict[str, Any]]:
        """Those of the last phase: what comes before it is preparation.

        The evaluator's own rules look at all phases: a task may be at its best before the next one
        is learned.
        """
        anywhere = rule in self.evaluator.rules
        return [row for row in rows if anywhere or row.get("phase") == self.phases[-1].name]

    def loop(self) -> Loop:
        return Loop(
            self.cfg,
            run_dir=self.run_dir,
            data=self.data,
            net=self.net,
            method=self.method,
            terms=self.terms,
            balance=self.balance,
            phases=self.phases,
            evaluate=lambda: self.evaluator.row(self.net),
            candidates=self.candidates,
            finish_build=self.finish_build,
            carry_over=self.carry_over,
            process=self.process,
            device=self.device,
            precision=self.precision,
            config_hash=config_hash(self.cfg),
            further_rules=self.evaluator.rules,
            began=self.began,
        )

    def finish_build(self, net: Net) -> None:
        """After a phase has added its parts: batch norm by domain, device, compile."""
        synchronize = self.process.world > 1 and bool(self.cfg["trainer"]["sync_batch_norm"])
        if net is self.net and self.learned_balance is not None:
            net.add(PART, self.learned_balance)
        convert(net, batch_norm_mode(self.method, self.phases), synchronize)
        net.to(self.device)
        for term in self.terms.values() if net is self.net else ():
            term.attach(net)
        if self.cfg["trainer"]["compile"]:
            for part in net.parts.values():
                part.compile()  # in place: the keys of the state stay as they are

    def carry_over(self, index: int, before: set[str]) -> None:
        """`init` and `transfer.*`, at the start of phase `index`; before: the parts it found."""

        def fresh() -> Net:
            backbone = {**self.cfg["backbone"], "weights": None}
            net = build_net({"backbone": backbone}, self.data.input_shape)
            for phase in self.phases[: index + 1]:
                self.method.build(phase, net, self.data)
                self.finish_build(net)
            return net

        table = self.start.apply(self.net, index, before, self.data.classes, fresh)
        if table is not None and self.process.first:
            log.info("%s", print_table(table))
            if self.start.init not in INITS and not self.net.carried and self.start.takes_all:
                log.warning("init=%s: nothing of that run fits, all is new", self.start.init)
            self.run_dir.write_json(self.run_dir.transfer, [fate.row() for fate in table])

    def check_patterns(self) -> None:
        """Build all phases on a copy: a pattern that matches nothing is an error now, not later.

        What that draws is given back: a worker process, which is not asked, starts the same.
        """
        net = copy.deepcopy(self.net)
        with torch.random.fork_rng(devices=[]):
            for index, phase in enumerate(self.phases):
                self.method.build(phase, net, self.data)
                net.select(phase.frozen)
                if index == self.start.phase:
                    self.start.check(net)

    def build_all(self) -> None:
        """Build the parts of every phase, for evaluation."""
        for phase in self.phases:
            self.method.build(phase, self.net, self.data)
        self.finish_build(self.net)

    def load(self, state: dict[str, Any]) -> None:
        """Put a checkpoint's parts and the method's state into place."""
        try:
            for name, part in state["parts"].items():
                self.net[name].load_state_dict(part)
        except RuntimeError as error:  # other sizes: the config is not the one it was trained with
            why = " ".join(str(error).split())
            raise ConfigError(f"the weights do not fit the net of this config: {why}") from error
        self.method.load_state_dict(state["method"])
        self.net.to(self.device).eval()

    def load_selected(self) -> dict[str, Any]:
        """Load the checkpoint that the selection rule kept; the last one if it chose none."""
        path = self.selected_path
        if path.stem != self.cfg["select"]["name"]:
            log.warning("the last step is used: %s", self.why_last())
        state = checkpoint.load(path)
        self.load(state)
        return state

    @property
    def selected_path(self) -> Path:
        path = self.run_dir.checkpoints / f"{self.cfg['select']['name']}.pt"
        return path if path.exists() else path.with_name("last.pt")

    def why_last(self) -> str:
        """Why the rule has no checkpoint of its own, in words."""
        rule = str(self.cfg["select"]["name"])
        rows = [row for row in self.run_dir.read_metrics() if row.get("split") == "eval"]
        chosen = self.choose(rows, rule)
        if chosen is None:
            return why_none(self._competing(rows, rule), rule, **self.guard)
        return (
            f"training has not come to its end, where {rule} chooses, or the weights of the step "
            f"that it chose ({chosen['step']}) are gone"
        )


def open_session(
    run_dir: RunDir,
    cfg: dict[str, Any],
    rank: int = 0,
    world: int = 1,
    space: Mapping[str, Any] | None = None,
) -> Session:
    """Build all that `cfg` describes. Raises ConfigError or DataError before any training.

    space: the label_space.json of a run that is only evaluated: the data come under its classes and
    columns, and the target's training images are left out where nothing else needs them.
    """
    prepare_process(cfg, rank, world)
    device = resolve_device(str(cfg["trainer"]["device"]))
    if world > 1 and device.type == "cuda":
        mine = assigned_gpu(rank)
        device = torch.device("cuda", rank if mine is None else mine)
        torch.cuda.set_device(device)
    precision = resolve_precision(str(cfg["trainer"]["precision"]), device)
    check_rule(str(cfg["select"]["name"]))
    if cfg["select"]["name"] == "oracle" and not cfg["evaluate"]["target_test"]:
        raise ConfigError(
            "select=oracle reads the target test, which evaluate.target_test=false hides"
        )
    for rule in cfg["selectors"]:
        check_rule(str(rule))
    method: Method = build(cfg["method"], "method")
    if cfg["batch_norm"] != "auto":
        method.batch_norm = str(cfg["batch_norm"])
    trained = (run_dir.checkpoints / "last.pt").exists()  # what it started from is needed no more
    method.init = resolve_init(str(cfg["init"]), method, trained)
    wanted = resolve_target_labels(cfg, method)
    check_target_labels(wanted, method)
    known = space or start_space(method.init, trained)
    tested = space is not None and method.needs.kind == "class"
    data = build_data(
        cfg["data"],
        seed=int(cfg["seed"]),
        target_labels="none" if tested else wanted,
        target_val_labels=cfg["target_val_labels"],
        target_images="none" if tested else str(cfg["target_images"]),
        shared_classes=method.needs.shared_classes,
        classes=None if space is None else source_classes(space),
        feature_names=None if known is None else known.get("feature_names"),
    )
    if method.needs.kind != data.kind:
        raise ConfigError(
            f"this method is made for data of the kind '{method.needs.kind}', and {data.name} is "
            f"of the kind '{data.kind}': `tlrun list experiments` shows pairs that fit"
        )
    if len(data.sources) < method.needs.sources:
        raise ConfigError(
            f"this method needs at least {method.needs.sources} sources, and {data.name} has "
            f"{len(data.sources)}: `tlrun list data` names sets of several sources, as "
            "data=digits_styles_digitsm"
        )
    if method.needs.open_set and UNKNOWN not in data.classes:
        raise ConfigError(
            "this method is for targets with classes that the source lacks: set "
            "data.label_spaces=open (and, to try it on a pair with the same classes, "
            "'data.source_classes=[0, 1, 2, 3, 4]')"
        )
    if known is not None:
        check_columns(data, known)
    if space is not None:
        data = as_trained(data, space)
        if cfg["data"].get("mean") is None:
            data = with_statistics(data, space["preprocess"])
    phases = [override_phase(phase, cfg["phases"]) for phase in method.phases(data)]
    start = Start.of(method.init, cfg["transfer"], phases)
    phases = [start.freeze_in(index, phase) for index, phase in enumerate(phases)]
    unknown = set(cfg["phases"]) - {phase.name for phase in phases}
    if unknown:
        raise ConfigError(
            f"phases.{unknown.pop()}: this method has no such phase; "
            f"it has {', '.join(p.name for p in phases)}"
        )
    for phase in phases if space is None else ():
        for stream in phase.streams:
            data.stream_set(stream)  # a clear error now, not after the first phase
            data.backdrops(stream)
            for view in phase.views.get(stream, ()):
                data.view(stream, view)
    evaluator = evaluator_of(data)(
        data,
        method,
        device,
        batch_size=int(cfg["evaluate"]["batch_size"]),
        max_images=int(cfg["select"]["max_images"]),
        seed=int(cfg["seed"]),
        target_test=bool(cfg["evaluate"]["target_test"]),
    )
    of_tasks = [r for r in (cfg["select"]["name"], *cfg["selectors"]) if r.startswith(TASK)]
    if of_tasks and not evaluator.rules:
        raise ConfigError(f"select={of_tasks[0]} is for data of several tasks: method=multitask")
    torch.manual_seed(int(cfg["seed"]))
    weights = None if trained else start.weights(cfg["backbone"].get("weights"))
    net = build_net({"backbone": {**cfg["backbone"], "weights": weights}}, data.input_shape)
    start.pretrained = weights is not None
    process = (
        Process() if world == 1 else Process.join(rank, world, run_dir.path / ".rendezvous", device)
    )
    terms: dict[str, Term] = {
        name: build(spec, f"terms.{name}") for name, spec in cfg["terms"].items()
    }
    for phase in phases:
        check_weight_decay(cfg, phase, terms)
    check_one_target(method, terms)
    balance = balance_of(cfg, method)
    tasks = {task.name: task.kind for task in data.tasks.values()}
    learned = balance.module(tasks) if balance else None
    return Session(
        cfg,
        run_dir,
        data,
        method,
        terms,
        balance,
        learned,
        phases,
        net,
        evaluator,
        device,
        precision,
        process,
        start,
    )


def override_phase(phase: Phase, overrides: dict[str, Any]) -> Phase:
    """Apply `phases.<name>.{steps,optimizer,schedule,frozen}` from the command line."""
    changes = dict(overrides.get(phase.name) or {})
    for key in ("optimizer", "schedule"):
        if key in changes:
            own = getattr(phase, key)
            changes[key] = merged(own, changes[key]) if "name" in own else {**own, **changes[key]}
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


def balance_of(cfg: dict[str, Any], method: Method) -> Balance | None:
    """How task losses are combined; None = the plain sum. Raises ConfigError where it cannot be."""
    balance: Balance = build(cfg["balance"], "balance")
    if isinstance(balance, Equal):
        return None
    if not method.balanced:
        raise ConfigError("balance=... weighs the losses of several tasks: method=multitask")
    if int(cfg["trainer"]["devices"]) > 1 and not balance.several_processes:
        raise ConfigError("this balance works in one process only: trainer.devices=1")
    if int(cfg["trainer"]["accumulate"]) > 1 and balance.looks_again:
        raise ConfigError("this balance looks at whole batches only: trainer.accumulate=1")
    return balance


def check_weight_decay(cfg: dict[str, Any], phase: Phase, terms: dict[str, Term]) -> None:
    """Refuse two kinds of weight decay on the same weights."""
    doubled = [name for name, term in terms.items() if term.decays_weights and phase.terms]
    if doubled and float(merged(cfg["optimizer"], phase.optimizer).get("weight_decay") or 0.0):
        raise ConfigError(
            f"terms=[{doubled[0]}] takes the place of weight decay: "
            f"set phases.{phase.name}.optimizer.weight_decay=0"
        )


def check_one_target(method: Method, terms: dict[str, Term]) -> None:
    """Refuse a term that knows one target where there are several tasks."""
    names = [name for name, term in terms.items() if term.one_target]
    if method.needs.kind == "tasks" and names:
        raise ConfigError(
            f"terms=[{names[0]}] knows one target, and this method learns several tasks: "
            "terms=[l2_sp], [ewc] or [lwf] can join them"
        )


def resolve_init(asked: str, method: Method, trained: bool = False) -> str:
    """`auto` = the method's choice. Raises ConfigError for a start that it cannot make.

    trained: there is a checkpoint, so a run that it started from may be gone by now.
    """
    if asked == "auto":
        return method.init
    if asked == "source" and method.init != "source":
        raise ConfigError(
            "init=source needs a method with a source phase of its own (method=finetune); give a "
            "run's folder instead, init=RUN_DIR"
        )
    if asked not in INITS and not trained:
        RunDir.open(asked)  # a clear error now
    return asked


def start_space(init: str, trained: bool) -> dict[str, Any] | None:
    """The label_space.json of the run whose weights this one starts from, if there is one."""
    if init in INITS or trained:
        return None
    path = RunDir.open(init).label_space
    return RunDir.read_json(path) if path.is_file() else None


def check_target_labels(wanted: Labels, method: Method) -> None:
    """Refuse too few labels; warn where labels would only shrink the set of target images."""
    if wanted == "none" and method.needs.target_labels != "none":
        raise ConfigError("this method trains on target labels, which target_labels=none withholds")
    if isinstance(wanted, int) and method.needs.target_labels == "none":
        log.warning(
            "this method uses no target labels: target_labels=%s leaves it that many images per "
            "class to adapt to; target_labels=none gives it all",
            wanted,
        )


def resolve_target_labels(cfg: dict[str, Any], method: Method) -> Labels:
    """`auto` = what the method needs."""
    asked: Labels | str = cfg["target_labels"]
    return method.needs.target_labels if asked == "auto" else asked  # type: ignore[return-value]
