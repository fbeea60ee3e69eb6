"""What must fit together before anything is trained: one function a rule.

Each raises ConfigError with the fix, or warns; none changes anything.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tlrun.config.one_set import give_source, has_source
from tlrun.config.schema import INITS
from tlrun.config.world_size import world_size
from tlrun.data.problems.pair import UNKNOWN_CLASS, Data, Labels
from tlrun.engine.optimizers import merged
from tlrun.errors import ConfigError
from tlrun.evaluate.evaluators.class_figures import Evaluator
from tlrun.evaluate.selection import TASK, check_rule
from tlrun.experiment.session import Session
from tlrun.methods.balances.base import Balance
from tlrun.methods.base import Method, Phase, Term
from tlrun.models.batch_norm import FROZEN
from tlrun.models.net import NO_STATISTICS, Net
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)

Config = Mapping[str, Any]

SAMPLE = 64  # images of a set that are looked at
WITHHELD = "this method trains on target labels, which target_labels=none withholds"


def check_rules(cfg: Config) -> None:
    """`select` and `selectors` name rules that exist and may look at what they need."""
    check_rule(str(cfg["select"]["name"]))
    if cfg["select"]["name"] == "oracle" and not cfg["evaluate"]["target_test"]:
        raise ConfigError(
            "select=oracle reads the target test, which evaluate.target_test=false hides"
        )
    for rule in cfg["selectors"]:
        check_rule(str(rule))


def check_task_rules(cfg: Config, evaluator: Evaluator) -> None:
    """A rule of tasks (`task_mean`, ...) needs an evaluator of several tasks."""
    rules = [str(rule) for rule in (cfg["select"]["name"], *cfg["selectors"])]
    task_rules = [rule for rule in rules if rule.startswith(TASK)]
    if task_rules and not evaluator.rules:
        raise ConfigError(f"select={task_rules[0]} is for data of several tasks: method=multitask")


def check_init(init: str, method: Method, trained: bool) -> None:
    """The weights that `init` names can be had.

    trained: there is a checkpoint, so a run that it started from may be gone by now.
    """
    if init == "source" and type(method).init != "source":
        raise ConfigError(
            "init=source needs a method with a source phase of its own (method=finetune); give a "
            "run's folder instead, init=RUN_DIR"
        )
    if init not in INITS and not trained:
        RunDir.open(init)


def check_frozen_statistics(cfg: Config, terms: Mapping[str, Term]) -> None:
    """`batch_norm=frozen` keeps statistics that there are, and nothing else works on them."""
    if cfg["batch_norm"] != FROZEN:
        return
    if cfg["init"] == "scratch":
        raise ConfigError(f"init=scratch comes without batch statistics: {NO_STATISTICS}")
    for name, term in terms.items():
        if term.batch_statistics:
            raise ConfigError(
                f"terms=[{name}] mixes statistics of the batch into batch norm, and "
                "batch_norm=frozen uses none: leave one of them out"
            )


def check_target_labels(labels: Labels, method: Method) -> None:
    """Refuse too few labels; warn where labels would only shrink the set of target images."""
    trains_on_them = method.requirements.target_labels != "none"
    if labels == "none" and trains_on_them and method.requirements.source_labels:
        raise ConfigError(WITHHELD)
    if isinstance(labels, int) and method.requirements.target_labels == "none":
        log.warning(
            "this method uses no target labels: target_labels=%s leaves it that many images per "
            "class to adapt to; target_labels=none gives it all",
            labels,
        )


def check_learns_classes(method: Method, data: Data) -> None:
    """Where there are no target labels, a method that trains on them learns no classes at all."""
    target = data.domains["target"].train if "target" in data.domains else None
    trains_on_them = method.requirements.target_labels != "none" and data.kind == "class"
    if trains_on_them and target is not None and target.labels is None and data.classes:
        raise ConfigError(WITHHELD)


def check_kind(method: Method, data: Data) -> None:
    """The data are of the kind that the method is made for."""
    if method.requirements.kind != data.kind:
        raise ConfigError(
            f"this method is made for data of the kind '{method.requirements.kind}', "
            f"and {data.name} is of the kind '{data.kind}': "
            "`tlrun list experiments` shows pairs that fit"
        )


def check_sources(method: Method, data: Data) -> None:
    """The data have as many single sources as the method needs."""
    if len(data.sources) < method.requirements.sources > 1:
        raise ConfigError(
            f"this method needs at least {method.requirements.sources} sources, and {data.name} "
            f"has {len(data.sources)}: `tlrun list data` names sets of several sources, as "
            "data=digits_styles_digitsm"
        )


def check_has_source(cfg: Config, method: Method) -> None:
    """The data have a source if the method learns from one."""
    if has_source(cfg["data"]) or not method.needs_source or method.requirements.kind != "class":
        return
    name, give = cfg["choices"].get("method", "this method"), give_source(cfg["data"])
    if "source" in method.requirements.streams:
        raise ConfigError(
            f"method={name} needs a labelled source: {give}; to train on these data alone, "
            "fine-tune a network that has learned elsewhere: method=finetune init=pretrained"
        )
    raise ConfigError(
        f"method={name} learns on a source first, and there is none: set init=pretrained "
        f"(published weights), init=RUN_DIR or init=scratch, or {give}"
    )


def check_open_set(method: Method, data: Data) -> None:
    """The target of an open-set method has classes that the source lacks."""
    if method.requirements.open_set and UNKNOWN_CLASS not in data.classes:
        raise ConfigError(
            "this method is for targets with classes that the source lacks: set "
            "data.label_spaces=open (and, to try it on a pair with the same classes, "
            "'data.source_classes=[0, 1, 2, 3, 4]')"
        )


def check_phase_names(cfg: Config, phases: Sequence[Phase]) -> None:
    """`phases.<name>` names phases that the method has."""
    unknown = set(cfg["phases"]) - {phase.name for phase in phases}
    if unknown:
        raise ConfigError(
            f"phases.{unknown.pop()}: this method has no such phase; "
            f"it has {', '.join(p.name for p in phases)}"
        )


def check_streams(data: Data, phases: Sequence[Phase]) -> None:
    """Every stream and view of every phase can be made: now, not after the first phase."""
    for phase in phases:
        for stream in phase.streams:
            examples = data.stream_set(stream)
            for view in ("weak", *phase.views.get(stream, ())):
                if augment := data.view(stream, view):
                    augment.check_fits(examples.shape)
            data.backdrops(stream)
            check_binarize(data, stream)


def check_binarize(data: Data, stream: str) -> None:
    """Most of an image is black where white strokes are meant; a photograph would become white."""
    augment, examples = data.view(stream, "weak"), data.stream_set(stream)
    if augment is None or "binarize" not in augment.ops:
        return
    some = torch.linspace(0, len(examples) - 1, min(len(examples), SAMPLE)).long()
    share = float((examples.read(some) > 0).float().mean())
    if share > 0.5:
        raise ConfigError(
            f"data.augment.{stream}.binarize makes all that is not black white, and of these "
            f"images that is {share:.0%}: it is for light strokes on black, as MNIST's; drop it"
        )


def check_mixing(
    cfg: Config, method: Method, data: Data, phases: Sequence[Phase], terms: Mapping[str, Term]
) -> None:
    """Who is given images that are mixed with their labels can learn from such labels."""
    for phase in phases:
        for stream in phase.streams:
            augment = data.view(stream, "weak")
            for name in augment.mixing if augment else ():
                key = f"data.augment.{stream}.{name}"
                if data.kind != "class":
                    raise ConfigError(f"{key}: labels are mixed of images of classes alone")
                if data.stream_set(stream).labels is None:
                    raise ConfigError(
                        f"{key} mixes labels with the images, and these have none: leave it out"
                    )
                if not method.takes_soft_labels:
                    raise ConfigError(
                        f"{key} mixes labels, and method={cfg['choices'].get('method')} takes one "
                        "class an image: leave it out, or choose source_only, finetune, dann or "
                        "cdan"
                    )
                hard = [name for name, term in terms.items() if not term.takes_soft_labels]
                if hard and phase.terms:
                    raise ConfigError(
                        f"{key} mixes labels, and terms=[{hard[0]}] takes one class an image: "
                        "leave one of them out"
                    )


def check_weight_decay(cfg: Config, phases: Sequence[Phase], terms: Mapping[str, Term]) -> None:
    """Refuse two kinds of weight decay on the same weights."""
    decays = [name for name, term in terms.items() if term.decays_weights]
    for phase in phases:
        optimizer = merged(cfg["optimizer"], phase.optimizer)
        if decays and phase.terms and float(optimizer.get("weight_decay") or 0.0):
            raise ConfigError(
                f"terms=[{decays[0]}] takes the place of weight decay: "
                f"set phases.{phase.name}.optimizer.weight_decay=0"
            )


def check_shown(method: Method, phases: Sequence[Phase], terms: Mapping[str, Term]) -> None:
    """Refuse a term that reads what a phase does not show: the phases before it would be lost; and
    one that joins no phase."""
    unseen = not any("target" in phase.streams for phase in phases)
    for phase in phases:
        shown = method.shown(phase)
        joins = phase.terms and phase.steps != 0
        for name, term in terms.items() if joins else ():
            for domain in term.domains:
                lacking = [what for what in term.reads if what not in shown.get(domain, ())]
                if domain in shown and not lacking:
                    continue
                images = f"the {lacking[0]} of {domain}" if domain in shown else domain
                other = unseen and domain == "target" and method.requirements.kind == "class"
                raise ConfigError(
                    f"terms=[{name}] needs {images} images in every phase that it joins, and "
                    f"phase {phase.name} of this method shows it none as such: leave the term out"
                    f"{', or take method=source_and_target' if other else ''}"
                )
    if terms and not any(phase.terms and phase.steps != 0 for phase in phases):
        raise ConfigError(
            f"terms=[{','.join(terms)}] would join no phase: this method takes no step with terms; "
            "leave them out"
        )


def check_one_target(method: Method, terms: Mapping[str, Term]) -> None:
    """Refuse a term that knows one target where there are several tasks."""
    names = [name for name, term in terms.items() if term.one_target]
    if method.requirements.kind == "tasks" and names:
        raise ConfigError(
            f"terms=[{names[0]}] knows one target, and this method learns several tasks: "
            "terms=[l2_sp], [ewc] or [lwf] can join them"
        )


def check_balance(cfg: Config, method: Method, balance: Balance) -> None:
    """A balance has several tasks to weigh, in as many processes and pieces as it can."""
    if not method.balanced:
        raise ConfigError("balance=... weighs the losses of several tasks: method=multitask")
    if world_size(cfg) > 1 and not balance.several_processes:
        nodes = "trainer.nodes=1 " if int(cfg["trainer"]["nodes"]) > 1 else ""
        raise ConfigError(f"this balance works in one process only: {nodes}trainer.devices=1")
    if int(cfg["trainer"]["accumulate"]) > 1 and balance.needs_post_step_losses:
        raise ConfigError("this balance looks at whole batches only: trainer.accumulate=1")


def check_phases(session: Session) -> None:
    """Every pattern of parts and stages (`transfer.*`, `frozen`) matches something, and method and
    terms find in every phase what they need.

    All phases are built on a copy of the net. What that draws is given back: a worker process,
    which does not ask, starts the same.
    """
    net, initial = copy.deepcopy(session.net), session.initial_weights
    goes_on = (session.run_dir.checkpoints / "last.pt").exists()
    with torch.random.fork_rng(devices=[]):
        for index, phase in enumerate(session.phases):
            before = set(net.parts)
            session.method.build(phase, net, session.data)
            frozen = net.select(phase.frozen)
            if index == initial.phase:
                initial.check(net)
                if not goes_on:  # else that of `init` is needed no more
                    initial.foresee(net, before, session.data.classes)
            if not goes_on:
                check_start(session, phase, net, frozen)


def check_start(session: Session, phase: Phase, net: Net, frozen: Sequence[str]) -> None:
    """Ask method and terms; net: as the phase will find it."""
    trainable = {p: p.requires_grad for p in net.parameters()}
    for stage in frozen:
        for parameter in net.parameters_in(stage):
            parameter.requires_grad_(False)
    session.method.check(phase, net, session.data)
    for term in session.terms.values() if phase.terms is True else ():
        term.check(net, session.data)
    for parameter, was in trainable.items():
        parameter.requires_grad_(was)
