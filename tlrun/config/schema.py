"""Types and ranges of the configuration, and the check that names the key, the value and the fix.

The keys are those of `conf/config.yaml` and its groups, where each has its line of documentation
(a test compares the two). What a method, backbone or data set may be given is not listed here:
`tlrun.config.build.build` binds those against the signature of their own class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, get_type_hints

from tlrun.config.ranges import (
    AboveZeroToOne,
    BatchSize,
    BelowOne,
    Count,
    Distinct,
    Interpolation,
    LearningRate,
    Names,
    Normalize,
    NotNegative,
    Number,
    Pixels,
    Positive,
    Range,
    Seed,
    Share,
    Size,
)
from tlrun.config.value_types import matches, refusal, show
from tlrun.errors import ConfigError, did_you_mean

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
    batch_size: BatchSize
    source_images: Count | None


@dataclass
class Sweep:
    new: bool
    fail_fast: bool
    jobs_per_gpu: Count


@dataclass
class Adam:
    """adam and adamw."""

    name: Literal["adam", "adamw"]
    lr: LearningRate
    weight_decay: NotNegative
    betas: tuple[BelowOne, BelowOne]
    head_lr_multiplier: NotNegative
    layer_decay: AboveZeroToOne


@dataclass
class SGD:
    name: Literal["sgd"]
    lr: LearningRate
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
    milestones: Annotated[list[Share], Distinct()]
    gamma: Positive


@dataclass
class Trainer:
    steps: Count | None
    epochs: Positive | None
    batch_size: BatchSize
    accumulate: BatchSize
    grad_clip: Positive | None
    device: Literal["auto", "cpu", "cuda", "mps"]
    devices: Annotated[int, Range(low=1, high=1024)]
    nodes: Annotated[int, Range(low=1, high=1024)]
    threads: Literal["auto"] | Annotated[int, Range(low=1, high=1024)]
    workers: Literal["auto"] | Annotated[int, Range(low=0, high=1024)]
    features: Literal["auto", "off"]
    features_gb: NotNegative
    features_cache_gb: NotNegative
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    compile: bool
    deterministic: bool
    sync_batch_norm: bool
    log_every: Count | None
    eval_every: Count | None
    checkpoint_every: Count | None


@dataclass
class Select:
    name: SelectionRule
    max_images: Count
    source_floor: Share
    min_effective_classes: Literal["auto"] | Share


@dataclass
class Transfer:
    carry: Names | None
    reinit: Names
    freeze: Names
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
    frozen: Names


@dataclass
class Pair:
    """`data`, where it is a source and a target without a builder (`_target_`) of their own.

    Each key may be left out; others are for the interpolations of a file of one's own.
    """

    size: Literal["auto"] | Pixels | None
    resize: Pixels | None
    channels: Literal[1, 3] | None
    normalize: Normalize | None
    interpolation: Interpolation | None
    mean: list[Number] | None
    std: list[Positive] | None
    label_spaces: Literal["shared", "partial", "open"] | None
    source_classes: Annotated[list, Distinct()] | None
    target_classes: Annotated[list, Distinct()] | None


@dataclass
class Augmentation:
    """`data.augment.<domain>`, each may be left out; data/pipeline/augment.py: what they mean."""

    random_resized_crop: Share
    color_jitter: Share
    rand_augment: Annotated[float, Range(0, 30)]
    rand_augment_ops: Annotated[int, Range(1, 14)]
    trivial_augment: Share
    flip: Share
    shift: Share
    rotate: Annotated[float, Range(0, 360)]
    scale: BelowOne
    shear: Annotated[float, Range(0, 10)]
    invert: Share
    invert_channels: Share
    gain: Annotated[float, Range(0, 100)]
    offset: Annotated[float, Range(0, 100)]
    background: Annotated[float, Range(0, 100)]
    noise: Annotated[float, Range(0, 100)]
    cutout: Annotated[float, Range(0, 2**12)]
    binarize: Share
    blend: Share
    blend_margin: Share
    mixup: Annotated[float, Range(0, 100)]
    cutmix: Annotated[float, Range(0, 100)]


@dataclass
class Experiment:
    """The whole configuration. dict = checked by its own builder against a signature."""

    seed: Seed
    target_labels: Literal["auto", "none", "all"] | Count
    target_val_labels: Literal["auto", "none", "all"] | Count
    target_images: Literal["all", "none"]
    init: str
    transfer: Transfer
    batch_norm: Literal["auto", "joint", "separate_forward", "per_domain", "frozen"]
    report: Literal["auto", "full", "light", "text", "none"]
    baseline: Literal["auto"] | bool
    terms: dict[str, Any]
    balance: dict[str, Any]
    selectors: Annotated[list[SelectionRule], Distinct()]
    phases: dict[str, Any]
    evaluate: Evaluate
    sweep: Sweep
    tags: Names
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
    check_data(cfg["data"])
    for name, term in cfg["terms"].items():
        if not isinstance(term, Mapping):
            raise ConfigError(f"terms.{name}={show(term)}: it is a group of keys, not a value")
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


def check_data(data: Mapping[str, Any]) -> None:
    """What the signature of a builder does not tell: a plain pair, and the augmentations."""
    if data and "_target_" not in data:
        names = {field.name for field in fields(Pair)}
        of_pair = {key: value for key, value in data.items() if key in names}
        check_section(of_pair, Pair, "data.", partial=True)
    augment = data.get("augment")
    for domain, ops in augment.items() if isinstance(augment, Mapping) else ():
        if ops is not None and not isinstance(ops, Mapping):
            raise ConfigError(
                f"data.augment.{domain}={show(ops)}: give operations and their strengths, for "
                f"example 'data.augment.{domain}={{rotate: 15}}'"
            )
        check_section(ops or {}, Augmentation, f"data.augment.{domain}.", partial=True)


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
            raise ConfigError(refusal(f"{prefix}{key}", value, kind))


def check_like(value: Any, default: Any, key: str) -> None:
    """Raise ConfigError if a value is of another kind than the packaged default of its key.

    What a default does not tell (null, a word) is left to the signature of what is built.
    """
    if isinstance(value, Mapping) and isinstance(default, Mapping):
        if value.get("_target_") == default.get("_target_"):
            for name in default.keys() & value.keys():
                check_like(value[name], default[name], f"{key}.{name}")
    elif value is not None and (kind := _kind_of(default)) and not matches(value, kind):
        raise ConfigError(refusal(key, value, kind))


def _kind_of(default: Any) -> Any:
    if isinstance(default, list):
        whole = bool(default) and all(type(item) is int for item in default)
        return list[int] if whole else list
    if isinstance(default, bool):
        return bool
    if isinstance(default, Mapping):
        return dict
    return float if isinstance(default, int | float) else None
