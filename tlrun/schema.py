"""Types and ranges of the configuration, and the check that names the key, the value and the fix.

The keys are those of `conf/config.yaml` and its groups, where each has its line of documentation
(a test compares the two). What a method, backbone or data set may be given is not listed here:
`tlrun.config.build` binds those against the signature of their own class.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from tlrun.errors import ConfigError, did_you_mean


class Range(NamedTuple):
    """Bounds of a number: low <= value <= high; the bound itself is left out if it is open."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        above = self.low is None or (value > self.low if self.open_low else value >= self.low)
        below = self.high is None or (value < self.high if self.open_high else value <= self.high)
        return above and below

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            low = f"above {self.low:g}" if self.open_low else f"from {self.low:g}"
            return f" {low} to {'below ' if self.open_high else ''}{self.high:g}"
        if self.low is not None:
            return f" above {self.low:g}" if self.open_low else f" of at least {self.low:g}"
        return "" if self.high is None else f" of at most {self.high:g}"


Count = Annotated[int, Range(low=1)]
Size = Annotated[int, Range(low=0)]
Positive = Annotated[float, Range(low=0, open_low=True)]
NotNegative = Annotated[float, Range(low=0)]
Share = Annotated[float, Range(low=0, high=1)]
AboveZeroToOne = Annotated[float, Range(low=0, high=1, open_low=True)]
BelowOne = Annotated[float, Range(low=0, high=1, open_high=True)]
SelectionRule = Literal[
    "information_maximization",
    "source_accuracy",
    "entropy",
    "diversity",
    "bnm",
    "snd",
    "mcc",
    "iwcv",
    "dev",
    "reverse_validation",
    "class_cluster",
    "target_accuracy",
    "task_mean",
    "last",
    "oracle",
]


@dataclass
class Evaluate:
    target_test: bool
    batch_size: Count


@dataclass
class Sweep:
    new: bool
    fail_fast: bool


@dataclass
class Adam:
    """adam and adamw."""

    name: Literal["adam", "adamw"]
    lr: Positive
    weight_decay: NotNegative
    betas: tuple[BelowOne, BelowOne]
    head_lr_multiplier: NotNegative
    layer_decay: AboveZeroToOne


@dataclass
class SGD:
    name: Literal["sgd"]
    lr: Positive
    weight_decay: NotNegative
    momentum: Share
    nesterov: bool
    head_lr_multiplier: NotNegative
    layer_decay: AboveZeroToOne


@dataclass
class Cosine:
    name: Literal["cosine"]
    warmup_steps: Size


@dataclass
class Constant:
    name: Literal["constant"]


@dataclass
class DannDecay:
    name: Literal["dann"]
    alpha: NotNegative
    beta: NotNegative


@dataclass
class StepDecay:
    name: Literal["step"]
    milestones: list[Share]
    gamma: Positive


@dataclass
class Trainer:
    steps: Count | None
    epochs: Positive | None
    batch_size: Count
    accumulate: Count
    grad_clip: Positive | None
    device: Literal["auto", "cpu", "cuda", "mps"]
    devices: Count
    threads: Literal["auto"] | Annotated[int, Range(low=1, high=1024)]
    workers: Size
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    compile: bool
    deterministic: bool
    sync_batch_norm: bool
    log_every: Count
    eval_every: Count | None
    checkpoint_every: Count | None


@dataclass
class Select:
    name: SelectionRule
    max_images: Count
    source_floor: Share
    min_effective_classes: Share


@dataclass
class Transfer:
    carry: list[str] | None
    reinit: list[str]
    freeze: list[str]
    cut: Size | None
    freeze_carried: bool


@dataclass
class PlainLogger:
    name: Literal["none", "tensorboard"]


@dataclass
class WandbLogger:
    name: Literal["wandb"]
    mode: Literal["offline", "online"]
    project: str
    entity: str | None


@dataclass
class MLflowLogger:
    name: Literal["mlflow"]
    folder: str | None
    uri: str | None
    experiment: str


@dataclass
class PhaseOverride:
    """`phases.<name>`; each key may be left out."""

    steps: Size | None
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    frozen: list[str]


@dataclass
class Experiment:
    """The whole configuration. dict = checked by its own builder against a signature."""

    seed: Annotated[int, Range(low=0, high=2**63 - 1)]
    target_labels: Literal["auto", "none", "all"] | Count
    target_val_labels: Literal["auto", "none", "all"] | Count
    target_images: Literal["all", "none"]
    init: str
    transfer: Transfer
    batch_norm: Literal["auto", "joint", "separate_forward", "per_domain"]
    baseline: Literal["auto"] | bool
    terms: dict[str, Any]
    balance: dict[str, Any]
    selectors: list[SelectionRule]
    phases: dict[str, Any]
    evaluate: Evaluate
    sweep: Sweep
    tags: list[str]
    dry_run: bool
    choices: dict[str, Any]
    data: dict[str, Any]
    backbone: dict[str, Any]
    method: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    trainer: Trainer
    select: Select
    logger: dict[str, Any]


INITS = ("auto", "source", "pretrained", "scratch")  # of `init`; anything else is a run's folder
OPTIMIZERS: dict[str, type] = {"adam": Adam, "adamw": Adam, "sgd": SGD}
SCHEDULES: dict[str, type] = {
    "cosine": Cosine,
    "constant": Constant,
    "dann": DannDecay,
    "step": StepDecay,
}
LOGGERS: dict[str, type] = {
    "none": PlainLogger,
    "tensorboard": PlainLogger,
    "wandb": WandbLogger,
    "mlflow": MLflowLogger,
}


def check(cfg: Mapping[str, Any]) -> None:
    """Raise ConfigError on the first key of the plain, resolved `cfg` that is unknown or wrong."""
    check_section(cfg, Experiment)
    check_variant(cfg["optimizer"], "optimizer", OPTIMIZERS)
    check_nesterov(cfg["optimizer"], "optimizer")
    check_variant(cfg["schedule"], "schedule", SCHEDULES)
    check_variant(cfg["logger"], "logger", LOGGERS)
    for name, phase in cfg["phases"].items():
        if not isinstance(phase, Mapping):
            raise ConfigError(
                f"phases.{name}={phase}: give its keys, for example phases.{name}.steps=500"
            )
        check_section(phase, PhaseOverride, f"phases.{name}.", partial=True)
        for section, variants in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if override := phase.get(section):
                # one that names another variant keeps none of the first one's own keys
                other = override.get("name", cfg[section]["name"]) != cfg[section]["name"]
                merged = override if other else {**cfg[section], **override}
                check_variant(merged, f"phases.{name}.{section}", variants, partial=other)
                if section == "optimizer":
                    check_nesterov(merged, f"phases.{name}.optimizer")


def check_variant(
    section: Mapping[str, Any], key: str, variants: Mapping[str, type], partial: bool = False
) -> None:
    """A group whose keys depend on its `name`."""
    name = str(section.get("name"))
    if name not in variants:
        raise ConfigError(f"{key}.name={name}: {did_you_mean(name, variants)}")
    foreign = {field.name for variant in variants.values() for field in fields(variant)}
    for inner in section:
        if inner in foreign and inner not in {field.name for field in fields(variants[name])}:
            raise ConfigError(
                f"{key}.name={name} knows no '{inner}': choose the whole group, {key}={name}"
            )
    check_section(
        section, variants[name], f"{key}.", partial, f" (or choose the group: {key}={name})"
    )


def check_nesterov(optimizer: Mapping[str, Any], key: str) -> None:
    """Nesterov's step is a form of momentum; torch refuses it without, but only after the data."""
    if optimizer.get("nesterov") and not optimizer.get("momentum"):
        raise ConfigError(
            f"{key}.nesterov=true needs momentum: give {key}.momentum=0.9, or {key}.nesterov=false"
        )


def check_section(
    section: Mapping[str, Any],
    schema: type,
    prefix: str = "",
    partial: bool = False,
    hint: str = "",
) -> None:
    """Unknown keys, missing keys (unless `partial`), types and ranges of one mapping."""
    types_of = get_type_hints(schema, include_extras=True)
    names = [field.name for field in fields(schema)]
    for key in section:
        if key not in names:
            raise ConfigError(f"unknown key '{prefix}{key}': {did_you_mean(key, names)}{hint}")
    for key in names:
        if key not in section:
            if partial:
                continue
            raise ConfigError(f"the key '{prefix}{key}' is missing{hint or ': give it a value'}")
        value, kind = section[key], types_of[key]
        if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__"):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{prefix}{key}={value}: it is a group of keys, not a value")
            check_section(value, kind, f"{prefix}{key}.")
        elif not matches(value, kind):
            near = did_you_mean(str(value), choices_of(kind)) if choices_of(kind) else ""
            raise ConfigError(
                f"{prefix}{key}={show(value)}: expected {describe(kind)}"
                + (f"; {near.split(' Valid:')[0]}" if near.startswith("did") else "")
            )


def check_like(value: Any, default: Any, key: str) -> None:
    """Raise ConfigError if a value is of another kind than the packaged default of its key.

    What a default does not tell (null, a word) is left to the signature of what is built.
    """
    if isinstance(value, Mapping) and isinstance(default, Mapping):
        if value.get("_target_") == default.get("_target_"):
            for name in default.keys() & value.keys():
                check_like(value[name], default[name], f"{key}.{name}")
    elif value is not None and (kind := _kind_of(default)) and not matches(value, kind):
        raise ConfigError(f"{key}={show(value)}: expected {describe(kind)}")


def _kind_of(default: Any) -> Any:
    if isinstance(default, list):
        whole = bool(default) and all(type(item) is int for item in default)
        return list[int] if whole else list
    if isinstance(default, bool):
        return bool
    if isinstance(default, Mapping):
        return dict
    return float if isinstance(default, int | float) else None


# ---- type hints, as far as a configuration needs them -------------------------------------------


def matches(value: Any, kind: Any) -> bool:
    """Whether a plain value fits a type hint; hints that YAML cannot express fit anything."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return matches(value, inner[0]) and inner[1].holds(value)
    if origin in (Union, types.UnionType):
        return any(matches(value, option) for option in inner)
    if origin is Literal:
        return value in inner and type(value) in {type(option) for option in inner}
    if kind in (None, type(None)):
        return value is None
    if kind is bool or kind is str:
        return isinstance(value, kind)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if (origin or kind) in (list, tuple):
        if not isinstance(value, list | tuple):
            return False
        if count := _length(kind):
            return len(value) == count and all(map(matches, value, inner))
        return not inner or all(matches(v, inner[0]) for v in value)
    if (origin or kind) is dict:
        return isinstance(value, Mapping)
    return True


def describe(kind: Any) -> str:
    """A type hint in words: 'a whole number of at least 1, or null'."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return describe(inner[0]) + str(inner[1])
    if origin in (Union, types.UnionType):
        return ", or ".join(describe(option) for option in inner)
    if origin is Literal:
        words = [str(option) for option in inner]
        return f"one of {', '.join(words)}" if len(words) > 1 else words[0]
    if kind in (None, type(None)):
        return "null"
    if (origin or kind) in (list, tuple):
        count = f"{_length(kind)} " if _length(kind) else ""
        return f"a list of {count}values, each {describe(inner[0])}" if inner else "a list"
    names = {bool: "true or false", str: "a word", int: "a whole number", float: "a number"}
    return names.get(kind, "a group of keys" if (origin or kind) is dict else str(kind))


def _length(kind: Any) -> int | None:
    """How many values a hint such as tuple[int, int] asks for; None if any number will do."""
    inner = get_args(kind)
    return len(inner) if get_origin(kind) is tuple and Ellipsis not in inner else None


def choices_of(kind: Any) -> list[str]:
    """The words that a hint allows, for did-you-mean."""
    if get_origin(kind) is Literal:
        return [str(option) for option in get_args(kind)]
    return [word for option in get_args(kind) for word in choices_of(option)]


def show(value: Any) -> str:
    """A value as one types it on the command line."""
    if isinstance(value, list):
        return f"[{','.join(show(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
