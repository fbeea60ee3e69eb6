"""`build_data`: one source -> target pair, behind the label firewall."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from tlrun.data.augment import Augment
from tlrun.data.image_set import ImageSet
from tlrun.data.preprocess import Preprocess
from tlrun.data.splits import Card, Splits, draw_per_class, with_val
from tlrun.errors import ConfigError, DataError, did_you_mean

log = logging.getLogger(__name__)

Labels = Literal["auto", "none", "all"] | int


@dataclass
class Domain:
    """The three sets of a domain. A target's train and val hold labels only if asked for."""

    name: str
    train: ImageSet | None
    val: ImageSet | None
    test: ImageSet | None
    card: Card


@dataclass
class Task:
    """What is to be predicted: a name, its kind (which evaluator judges it) and its label space.

    domain: the domain whose images it belongs to (None = all of them). column: which of the columns
    of those images holds it ("" = their labels); a class below 0 and a NaN are unknown.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    domain: str | None = None
    column: str = ""

    def truth(self, labels: Tensor | None, columns: Mapping[str, Tensor]) -> Tensor:
        """What is to be predicted, of the labels and columns of a batch or a set."""
        found = columns[self.column] if self.column else labels
        if found is None:
            raise DataError(f"there are no labels for the task '{self.name}'.")
        return found


@dataclass
class Data:
    """All that a run may see. target_labels_seen: labels in the target's train and val.

    evaluator: which of `evaluate.evaluators.EVALUATORS` judges it ("" = the kind of its task).
    facts: what else a method's `build` or the evaluator needs to know (plain values for JSON; they
    are saved in label_space.json): attributes of classes, ways and shots of episodes ...
    """

    name: str
    domains: dict[str, Domain]
    tasks: dict[str, Task]
    preprocess: Preprocess
    augment: dict[str, Augment] = field(default_factory=dict)
    target_labels_seen: int = 0
    evaluator: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Which evaluator judges it: its own, else by the kind of its task."""
        return self.evaluator or next(iter(self.tasks.values())).kind

    @property
    def source_classes(self) -> tuple[str, ...]:
        """Those of the source: `classes` unless the two domains have their own."""
        return self.tasks.get("source", self.tasks["class"]).classes

    @property
    def classes(self) -> tuple[str, ...]:
        return self.tasks["class"].classes

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the single sources, each a stream of its own; "source" is all of them."""
        return tuple(self.facts.get("sources", ("source",)))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) or (D,) of what the net is given."""
        return self.preprocess.output_shape

    def role(self, role: str) -> ImageSet | None:
        """The set of a role such as "target_test", or None if the data have none."""
        domain, _, split = role.rpartition("_")
        if domain not in self.domains or split not in ("train", "val", "test"):
            roles = [f"{d}_{s}" for d in self.domains for s in ("train", "val", "test")]
            raise ConfigError(f"unknown role '{role}': {did_you_mean(role, roles)}")
        found: ImageSet | None = getattr(self.domains[domain], split)
        return found

    def stream_set(self, name: str) -> ImageSet:
        """The training set of stream `name`. ConfigError if there is none."""
        if name not in self.domains:
            raise ConfigError(
                f"the data '{self.name}' have no domain '{name}': "
                f"{did_you_mean(name, self.domains)}"
            )
        train = self.domains[name].train
        if train is None:
            raise ConfigError(
                f"the method trains on {name} images, which target_images=none withholds; "
                "set target_images=all or choose a method that needs none."
            )
        return train

    def info(self) -> dict[str, Any]:
        """For environment.json: what each role held. Labels of target-test leave no trace here."""
        out: dict[str, Any] = {
            "name": self.name,
            "target_labels_seen": self.target_labels_seen,
            "domains": {},
        }
        for key, domain in self.domains.items():
            roles: dict[str, Any] = {}
            for split in ("train", "val", "test"):
                examples: ImageSet | None = getattr(domain, split)
                if examples is None:
                    continue
                roles[split] = {"count": len(examples), "checksum": examples.checksum}
                if examples.labels is not None and (key, split) != ("target", "test"):
                    roles[split]["count_by_class"] = examples.class_counts()
                    roles[split]["label_checksum"] = examples.label_checksum
            out["domains"][key] = {**domain.card.to_dict(), "splits": roles}
        return out

    def label_space(self) -> dict[str, Any]:
        """For label_space.json: all that prediction needs to know about the data."""
        return {
            "classes": list(self.classes),
            "tasks": {
                t.name: {"kind": t.kind, "classes": list(t.classes), "domain": t.domain}
                for t in self.tasks.values()
            },
            "domains": list(self.domains),
            "facts": self.facts,
            "input_shape": list(self.input_shape),
            "preprocess": self.preprocess.spec(),
        }


def build_data(
    cfg: Mapping[str, Any],
    *,
    seed: int,
    target_labels: Labels = "none",
    target_val_labels: Labels = "auto",
    target_images: str = "all",
    shared_classes: bool = True,
    allow_download: bool = True,
) -> Data:
    """Build the pair of `cfg` (the group `data`), or what its own `_target_` builds from it.

    target_labels: none | all | k. With none, training and validation sets of the target are objects
    without labels before anyone sees them. With k, target-train holds just k examples per class,
    with labels. target_val_labels: the same for target-val; auto = all with target_labels=all, else
    none. All labels that are held are counted. target_images: all | none (with none the target has
    its test set only). shared_classes: False lets source and target have different classes, each a
    task of its own. Raises ConfigError or DataError.
    """
    from omegaconf import DictConfig, OmegaConf

    conf: Any = (
        OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else dict(cfg)
    )
    if "_target_" in conf:
        return _build_own(conf, seed, target_labels, target_val_labels, target_images)
    if target_images not in ("all", "none"):
        raise ConfigError(f"target_images={target_images}: choose all or none.")
    splits = {
        d: with_val(load_splits(conf, d, seed, allow_download), d, seed)
        for d in ("source", "target")
    }
    source, target = splits["source"], splits["target"]
    if source.train.labels is None or source.train.classes is None:
        raise DataError(
            f"the source '{source.train.name}' has no labels; give a folder per class or a list "
            "of 'path label'."
        )
    classes = source.train.classes
    tasks = {"class": Task("class", "class", classes)}
    own = None if shared_classes else _own_classes(target, classes)
    if own:
        tasks = {
            "class": Task("class", "class", own, "target"),
            "source": Task("source", "class", classes, "source"),
        }
    else:
        target = match_classes(target, classes, source.train.name)
    check_shapes(source.train, target.train)

    train, val, seen = behind_firewall(target, target_labels, target_val_labels, seed)
    domains = {
        "source": Domain(source.card.name, source.train, source.val, source.test, source.card),
        "target": Domain(target.card.name, train, val, target.test, target.card),
    }
    if target_images == "none":
        domains["target"] = Domain(target.card.name, None, None, target.test, target.card)
        seen = 0
    augment = conf.get("augment") or {}
    for name in augment:
        if name not in domains:
            raise ConfigError(f"unknown key data.augment.{name}: {did_you_mean(name, domains)}")
    return Data(
        name=str(conf.get("name", "data")),
        domains=domains,
        tasks=tasks,
        preprocess=preprocess_of(conf, source.train, target.fit),
        augment={d: Augment(augment.get(d)) for d in domains},
        target_labels_seen=seen,
    )


def _build_own(
    conf: Mapping[str, Any], seed: int, labels: Labels, val_labels: Labels, images: str
) -> Data:
    """Data that are no plain pair: a callable of `conf`'s keys that returns `Data`."""
    from tlrun.config import build

    data = build(
        conf,
        seed=seed,
        target_labels=labels,
        target_val_labels=val_labels,
        target_images=images,
    )
    if not isinstance(data, Data):
        raise ConfigError(f"{conf['_target_']} must return tlrun.data.pair.Data")
    return data


def _own_classes(target: Splits, classes: tuple[str, ...]) -> tuple[str, ...] | None:
    """The target's classes if they are others than the source's; None if they are the same."""
    known = [s.classes for s in (target.train, target.test) if s is not None and s.classes]
    return known[0] if known and set(known[0]) != set(classes) else None


def load_splits(conf: Mapping[str, Any], domain: str, seed: int, download: bool) -> Splits:
    from tlrun.config import build

    block = conf.get(domain)
    if not isinstance(block, Mapping) or "_target_" not in block:
        raise ConfigError(
            f"data.{domain} must name a data set (_target_); see conf/data/digits_digitsm.yaml."
        )
    splits = build(block, seed=seed, size=conf.get("size"), download=download)
    if not isinstance(splits, Splits):
        raise ConfigError(
            f"data.{domain}: {block['_target_']} must return tlrun.data.splits.Splits."
        )
    _warn_of_equal_sets(splits)
    return splits


def match_classes(
    target: Splits,
    classes: tuple[str, ...],
    source_name: str,
    what: str = "source and target",
) -> Splits:
    """The target with labels in the order of the source's classes, matched by name."""

    def match(examples: ImageSet | None) -> ImageSet | None:
        if examples is None or examples.labels is None or examples.classes is None:
            return examples
        if examples.classes == classes:
            return examples
        extra = sorted(set(examples.classes) - set(classes))
        lacking = sorted(set(classes) - set(examples.classes))
        if extra or lacking:
            only = "; ".join(
                f"only in {name}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
                for name, names in ((source_name, lacking), (examples.name, extra))
                if names
            )
            raise DataError(
                f"{what} must have the same classes ({only}); rename or remove class "
                "folders or labels."
            )
        order = torch.tensor([classes.index(name) for name in examples.classes])
        return examples.with_labels(order[examples.labels], classes)

    train = match(target.train)
    assert train is not None
    return Splits(train, match(target.val), match(target.test), target.card, target.fit)


def _warn_of_equal_sets(splits: Splits) -> None:
    """Say so if the test is the training set, unless the protocol has it so (one object)."""
    train, test = splits.train, splits.test
    if test is None or test is train or len(test) != len(train):
        return
    if test.checksum == train.checksum:
        log.warning("%s: the test images are the training images", train.name)


def check_shapes(source: ImageSet, target: ImageSet) -> None:
    a, b = source.shape, target.shape
    if len(a) != len(b) or (a != b if len(a) == 1 else a[1:] != b[1:]):
        raise DataError(
            f"{source.name} has examples of shape {a}, {target.name} of {b}; they must agree "
            "(data.size)."
        )


def behind_firewall(
    target: Splits, labels: Labels, val_labels: Labels, seed: int
) -> tuple[ImageSet, ImageSet | None, int]:
    """(train, val, labels held) of the target."""
    if val_labels == "auto":
        val_labels = "all" if labels == "all" else "none"
        if target.val is not None and target.val.labels is None:
            val_labels = "none"  # nobody asked for them
    train = allowed(target.train, labels, seed, "target_labels")
    val = None if target.val is None else allowed(target.val, val_labels, seed, "target_val_labels")
    held = sum(len(s) for s in (train, val) if s is not None and s.labels is not None)
    return train, val, held


def allowed(examples: ImageSet, labels: Labels, seed: int, key: str) -> ImageSet:
    """The examples as a method may see them: without labels, all with theirs, or k per class.

    key: the configuration's key, for the message. Raises ConfigError.
    """
    if labels == "none" or labels == 0:
        return examples.without_labels()
    if examples.labels is None:
        raise ConfigError(f"{key}={labels}, but {examples.name} has no labels; use {key}=none.")
    if labels == "all":
        return examples
    if isinstance(labels, bool) or not isinstance(labels, int) or labels < 0:
        raise ConfigError(f"{key}={labels}: choose none, all or a number of labels per class.")
    return examples.subset(draw_per_class(examples, labels, seed))


def preprocess_of(conf: Mapping[str, Any], source: ImageSet, fit: str) -> Preprocess:
    mode = str(conf.get("normalize") or "none")
    mean, std = conf.get("mean"), conf.get("std")
    channels = int(conf.get("channels") or 3)
    if mode == "standard" and (mean is None or std is None):
        mean, std = _statistics(source, Preprocess(source.shape, "none", channels=channels))
    return Preprocess(source.shape, mode, channels=channels, mean=mean, std=std, fit=fit)


def _statistics(source: ImageSet, unit: Preprocess) -> tuple[list[float], list[float]]:
    """Mean and std per channel or feature over (at most 10,000 of) the source's training set."""
    count, total, square = 0, torch.zeros(()), torch.zeros(())
    for index in torch.arange(len(source))[:10_000].split(1000):
        x: Tensor = unit(source.read(index)).double()
        flat = x.flatten(2).transpose(1, 2).reshape(-1, x.shape[1]) if x.ndim == 4 else x
        count += len(flat)
        total = total + flat.sum(0)
        square = square + flat.square().sum(0)
    mean = total / count
    std = (square / count - mean.square()).clamp_min(0).sqrt().clamp_min(1e-6)
    return mean.tolist(), std.tolist()
