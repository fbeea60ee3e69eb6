"""`build_data`: one source -> target pair, behind the label firewall."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tlrun.config.build import locate
from tlrun.config.one_set import has_source
from tlrun.data.examples.decode import GreyRange
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.match import (
    classes_of,
    match_classes,
    match_columns,
    order_columns,
    relabelled,
)
from tlrun.data.examples.splits import (
    Card,
    Splits,
    common_grey,
    draw_per_class,
    warn_of_shared_images,
    with_val,
)
from tlrun.data.pipeline.activations import Activations, as_given
from tlrun.data.pipeline.augment import BLENDS, STORED, Augment
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.data.pipeline.streams import batches
from tlrun.data.problems.class_checks import check_alone, check_source, check_target, class_names
from tlrun.data.problems.domain_words import data_sets, uses_words
from tlrun.data.problems.label_space import Facts, LabelSpace, Task
from tlrun.data.problems.options import Labels, Options
from tlrun.data.problems.without_source_labels import label_spaces_apart, stand_apart
from tlrun.errors import ConfigError, DataError, did_you_mean

log = logging.getLogger(__name__)

LABEL_SPACES = ("shared", "partial", "open")
STRONG = "_strong"  # data.augment.<domain>_strong
AUTO_SIZE, AUTO_NORMALIZE = 64, "half"  # of `auto`, where no pretrained weights say otherwise
UNLABELLED = "target_unlabelled"  # the stream of all target images, beside the few with labels
UNKNOWN_CLASS = "unknown"  # the class of target images that are of no class of the source


@dataclass
class Domain:
    """The three sets of a domain. A target's train and val hold labels only if asked for."""

    name: str
    train: ImageSet | None
    val: ImageSet | None
    test: ImageSet | None
    card: Card

    @classmethod
    def of(cls, splits: Splits) -> Domain:
        """All sets as they are."""
        return cls(splits.card.name, splits.train, splits.val, splits.test, splits.card)


@dataclass
class Data:
    """All that a run may see. target_labels_seen: labels in the target's train and val.

    evaluator: which of `evaluate.evaluators.EVALUATORS` judges it ("" = the kind of its task).
    facts: what else a method's `build` or the evaluator needs to know of this kind of problem.
    unlabelled: all training images of the target without labels, where `target_labels` has drawn a
    few of them; the stream UNLABELLED. feature_names: the columns of ready features, in the order
    in which the net is given them; None for images, and where the files do not name them.
    activations: what the frozen part of the net made of the images, while a phase keeps it.
    """

    name: str
    domains: dict[str, Domain]
    tasks: dict[str, Task]
    preprocess: Preprocess
    augment: dict[str, Augment] = field(default_factory=dict)
    target_labels_seen: int = 0
    evaluator: str = ""
    facts: Facts = field(default_factory=Facts)
    unlabelled: ImageSet | None = None
    feature_names: tuple[str, ...] | None = None
    activations: Activations | None = None

    @property
    def kind(self) -> str:
        """Which evaluator judges it: its own, else by the kind of its task."""
        return self.evaluator or next(iter(self.tasks.values())).kind

    @property
    def label_space(self) -> LabelSpace:
        """What a net trained on these data will know of them."""
        return LabelSpace(
            self.tasks,
            self.facts,
            tuple(self.domains),
            self.input_shape,
            self.preprocess.spec(),
            self.feature_names,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """As `LabelSpace.classes`; so the others."""
        return self.label_space.classes

    @property
    def num_classes(self) -> int:
        return self.label_space.num_classes

    @property
    def source_classes(self) -> tuple[str, ...]:
        return self.label_space.source_classes

    @property
    def sources(self) -> tuple[str, ...]:
        return self.label_space.sources

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) or (D,) of what the net is given."""
        return self.preprocess.output_shape

    def role(self, role: str) -> ImageSet | None:
        """The set of a role such as "target_test", or None if the data have none."""
        domain, _, split = role.rpartition("_")
        if domain == "source" and domain not in self.domains and self.kind == "class":
            return None
        if domain not in self.domains or split not in ("train", "val", "test"):
            roles = [f"{d}_{s}" for d in self.domains for s in ("train", "val", "test")]
            raise ConfigError(f"unknown role '{role}': {did_you_mean(role, roles)}")
        examples: ImageSet | None = getattr(self.domains[domain], split)
        return examples

    def stream_set(self, name: str) -> ImageSet:
        """The training set of stream `name`. ConfigError if there is none."""
        if name == UNLABELLED:
            if self.unlabelled is None:
                raise ConfigError(
                    "the method trains on a few labelled target images beside the unlabelled ones: "
                    "set target_labels=3 (per class), with target_images=all"
                )
            return self.unlabelled
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

    def batches(
        self, examples: ImageSet, device: torch.device | str = "cpu", batch_size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor | None, Tensor]]:
        """One pass over a set in order, without augmentation: x (B, ...), y, index, on the device.

        x is what the net takes: images, or activations of its frozen part where they are kept.
        """
        kept = None if self.activations is None else self.activations.of(examples)
        if kept is None:
            return batches(examples, self.preprocess, device, batch_size)
        return batches(kept, as_given, device, batch_size)

    def inputs(
        self, examples: ImageSet, index: Tensor, device: torch.device | str = "cpu"
    ) -> Tensor:
        """What the net takes of the examples `index` (B,): x (B, ...) on the device."""
        kept = None if self.activations is None else self.activations.of(examples)
        if kept is None:
            x: Tensor = self.preprocess(examples.read(index).to(device))
            return x
        return kept.read(index).to(device)

    def view(self, stream: str, view: str) -> Augment | None:
        """The augmentation of a view of a stream's images (`Phase.views`), None for no change."""
        domain = "target" if stream == UNLABELLED else stream
        if view == "clean":
            return None
        if view == "weak":
            return self.augment.get(domain)
        strong = self.augment.get(f"{domain}{STRONG}")
        if not strong:
            raise ConfigError(
                f"this method compares images with a strongly augmented view of them: set "
                f"data.augment.{domain}{STRONG}, for example "
                f"'data.augment.{domain}{STRONG}={{rotate: 15, scale: 0.2, noise: 0.1}}'"
            )
        for name in sorted({*STORED, *strong.mixing} & strong.ops.keys()):
            raise ConfigError(
                f"data.augment.{domain}{STRONG}.{name}: only plain images are blended, "
                f"binarized or mixed, as data.augment.{domain}.{name}"
            )
        return strong

    def backdrops(self, stream: str) -> ImageSet | None:
        """The target's training images, if the augmentation of a stream blends with them."""
        augment = self.augment.get(stream)
        asked = [name for name in BLENDS if augment is not None and name in augment.ops]
        if not asked:
            return None
        if stream == "target" or "target" not in self.domains:
            raise ConfigError(
                f"data.augment.{stream}.{asked[0]} lays images of the target behind those of a "
                "source: give it as data.augment.source, of data with a source and a target"
            )
        images = self.unlabelled or self.domains["target"].train
        if images is None:
            raise ConfigError(
                f"data.augment.{stream}.{asked[0]} lays target images behind those of the "
                f"{stream}, and target_images=none withholds them"
            )
        return images

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


def build_data(cfg: Mapping[str, Any], options: Options) -> Data:
    """Build the pair of `cfg` (the group `data`), or what its own `_target_` builds from it.

    `data.label_spaces` says how the classes of the target relate to the source's. shared: they are
    the same; partial: the target may lack some; open: it may lack some, and what the source does
    not know is the class UNKNOWN_CLASS, behind those of the source. Without a
    source (`one_set.has_source`) there is a target alone. Raises ConfigError or DataError.
    """
    from omegaconf import DictConfig, OmegaConf

    conf: Any = (
        OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else dict(cfg)
    )
    if uses_words(conf):
        conf = data_sets(conf, options)
    if conf.get("size") == "auto":  # nobody has resolved it: no pretrained weights
        conf["size"] = AUTO_SIZE
    if "_target_" in conf:
        return _build_own(conf, options)
    if not has_source(conf):
        return _build_alone(conf, options)
    withheld = options.withholds_target
    splits = {
        domain: with_val(load_splits(conf, domain, options), domain, options.seed)
        for domain in ("source", "target")
    }
    if options.source_labels and options.trains:
        _require_labels(splits["source"].train)
    label_spaces = str(conf.get("label_spaces") or "shared")
    if label_spaces not in LABEL_SPACES:
        raise ConfigError(
            f"data.label_spaces={label_spaces}: {did_you_mean(label_spaces, LABEL_SPACES)}"
        )
    splits = only_classes(splits, conf)
    options = options.settled(splits["target"].train.labels is not None)
    apart = stand_apart(splits, options)
    matched = label_spaces_apart if apart else _matched
    source, target, tasks = matched(splits, label_spaces, options)
    domain, seen = target_domain(target, options)
    domains = {"source": Domain.of(source), "target": domain}
    few = isinstance(options.target_labels, int) and options.target_labels > 0 and not withheld
    return Data(
        name=str(conf.get("name", "data")),
        domains=domains,
        tasks=tasks,
        preprocess=preprocess_of(conf, source.train, target.fit, common_grey(splits)),
        augment=augmentations(conf.get("augment"), domains),
        target_labels_seen=seen,
        unlabelled=target.train.without_labels() if few else None,
        feature_names=source.feature_names,
    )


def _build_alone(conf: Mapping[str, Any], options: Options) -> Data:
    """The target alone: its own classes are those of the net, its training set normalises."""
    is_trained = options.classes is not None
    if options.withholds_target and not is_trained:
        raise ConfigError("target_images=none leaves nothing to train on: there is no source")
    for key, plain in (("label_spaces", "shared"), ("source_classes", None)):
        if conf.get(key) not in (None, plain):
            raise ConfigError(f"data.{key}={conf[key]} is about a source, and there is none")
    splits = only_classes({"target": load_splits(conf, "target", options)}, conf)
    target = with_val(splits["target"], "target", options.seed)
    target = order_columns(target, options.feature_names, "the run")
    if options.classes is not None:
        classes = tuple(options.classes)
        target = unknown_merged(target, classes) if UNKNOWN_CLASS in classes else target
        what = "a run and the data that it is evaluated on"
        target = match_classes(target, classes, "the run", what, lacking=True)
    else:
        _require_labels(target.train, "target")
        check_alone(target)
        classes = target.train.classes or ()
    check_target(target, has_own_classes=not is_trained)
    domain, seen = target_domain(target, options)
    few = isinstance(options.target_labels, int) and options.target_labels > 0 and not is_trained
    augment = augmentations(conf.get("augment"), ("source", "target"))
    return Data(
        name=str(conf.get("name", "data")),
        domains={"target": domain},
        tasks={"class": Task("class", "class", classes)},
        preprocess=preprocess_of(conf, target.train, target.fit, common_grey({"target": target})),
        augment={name: ops for name, ops in augment.items() if name.startswith("target")},
        target_labels_seen=seen,
        unlabelled=target.train.without_labels() if few else None,
        feature_names=target.feature_names,
    )


def _require_labels(train: ImageSet, domain: str = "source") -> None:
    if train.labels is not None and train.classes is not None:
        return
    give = (
        f"name the array or column of its classes labels, or give its name as data.{domain}.labels"
        if len(train.shape) == 1
        else "give a folder per class or a list of 'path label'"
    )
    if domain == "source" and len(train.shape) > 1:
        give += ", or learn without any: method=simclr or method=rotation"
    alone = "" if domain == "source" else ", and there is no source to name the classes"
    raise DataError(f"the {domain} '{train.name}' has no labels{alone}; {give}.")


def _matched(
    splits: Mapping[str, Splits], label_spaces: str, options: Options
) -> tuple[Splits, Splits, dict[str, Task]]:
    """Source and target under the classes and columns of the source or of a trained net, and the
    tasks that these classes make."""
    source = order_columns(splits["source"], options.feature_names, "the run")
    target = match_columns(splits["target"], source)
    name, what = source.train.name, "source and target"
    classes = source.train.classes or ()
    lacking = label_spaces != "shared" or options.withholds_target
    is_trained = options.classes is not None
    if options.classes is not None:
        label_spaces = "open" if UNKNOWN_CLASS in options.classes else label_spaces
        classes = tuple(c for c in options.classes if c != UNKNOWN_CLASS)
        name, what = "the run", "a run and the data that it is evaluated on"
    source = match_classes(source, classes, name, what, lacking=is_trained)
    if not is_trained:
        if options.source_labels:
            check_source(source, UNKNOWN_CLASS if label_spaces == "open" else None)
        warn_of_shared_images({"source": source, "target": target})
    if label_spaces == "open":
        classes = (*classes, UNKNOWN_CLASS)
        source = match_classes(source, classes, name, lacking=True)
        target = unknown_merged(target, classes)
    target_classes = None if options.shared_classes else _own_classes(target, classes)
    check_target(target, has_own_classes=bool(target_classes))
    if target_classes:
        tasks = {
            "class": Task("class", "class", target_classes, "target"),
            "source": Task("source", "class", classes, "source"),
        }
        return source, match_classes(target, target_classes, target.train.name), tasks
    target = match_classes(target, classes, name, what, lacking=lacking, spaces=not is_trained)
    return source, target, {"class": Task("class", "class", classes)}


def target_domain(target: Splits, options: Options) -> tuple[Domain, int]:
    """The target behind the label firewall, and how many of its labels are held.

    Raises ConfigError if it is cut by labels that are not all held.
    """
    options = options.settled(target.train.labels is not None)
    if options.withholds_target:
        return Domain(target.card.name, None, None, target.test, target.card), 0
    train, val, seen = behind_firewall(target, options)
    if target.stratify and options.trains and options.classes is None:
        hidden = target_labels_hidden(target, val, options)
        if hidden:
            raise ConfigError(
                f"data.stratify=true cuts the target by its labels, and {hidden} hides them: set "
                f"{hidden.partition('=')[0]}=all, or leave the target's stratify out."
            )
    return Domain(target.card.name, train, val, target.test, target.card), seen


def target_labels_hidden(target: Splits, val: ImageSet | None, options: Options) -> str:
    """The setting that withholds labels of the target's training or validation set, or ""."""
    if options.target_labels != "all":
        return f"target_labels={options.target_labels}"
    if val is not None and val.labels is None:
        return f"target_val_labels={options.target_val_labels}"
    return ""


def augmentations(
    conf: Mapping[str, Any] | None, domains: Iterable[str], note: str = ""
) -> dict[str, Augment]:
    """`data.augment`: of each domain, and of its strong view. Raises ConfigError, with the note."""
    names = [name for d in domains for name in (d, f"{d}{STRONG}")]
    for name in conf or {}:
        if name not in names:
            raise ConfigError(f"unknown key data.augment.{name}: {did_you_mean(name, names)}{note}")
    return {name: Augment((conf or {}).get(name)) for name in names}


def only_classes(splits: Mapping[str, Splits], conf: Mapping[str, Any]) -> dict[str, Splits]:
    """`data.source_classes` and `data.target_classes`: the sets without images of other classes.

    So that one pair can stand for problems where the domains do not have the same classes.
    """
    kept = {}
    for domain, domain_splits in splits.items():
        names = class_names(conf.get(f"{domain}_classes"), f"data.{domain}_classes")
        kept[domain] = (
            domain_splits
            if names is None
            else _only(domain_splits, names, f"data.{domain}_classes")
        )
    return kept


def _only(splits: Splits, names: list[str], key: str) -> Splits:
    def keep(examples: ImageSet, before: Tensor, classes: tuple[str, ...]) -> ImageSet:
        number = {name: i for i, name in enumerate(names)}
        labels = torch.tensor([number.get(name, -1) for name in classes])[before]
        inside = (labels >= 0).nonzero().flatten()
        return examples.subset(inside).with_labels(labels[inside], names)

    if splits.train.labels is None:
        raise ConfigError(f"{key}: {splits.train.name} has no labels to choose by")
    present = classes_of(splits)
    if unknown := [name for name in names if name not in present]:
        raise ConfigError(
            f"{key}: {splits.train.name} has no class '{unknown[0]}': "
            f"{did_you_mean(unknown[0], present)}"
        )
    return relabelled(splits, keep)


def unknown_merged(target: Splits, classes: tuple[str, ...]) -> Splits:
    """The target with all images of classes that `classes` does not name under UNKNOWN_CLASS."""

    def merge(examples: ImageSet, labels: Tensor, target_classes: tuple[str, ...]) -> ImageSet:
        shared = [name for name in target_classes if name in classes and name != UNKNOWN_CLASS]
        names = (*shared, UNKNOWN_CLASS)
        order = [names.index(name if name in shared else UNKNOWN_CLASS) for name in target_classes]
        return examples.with_labels(torch.tensor(order)[labels], names)

    return relabelled(target, merge)


def _build_own(conf: Mapping[str, Any], options: Options) -> Data:
    """Data that are no plain pair: a callable of `conf`'s keys and `options` returns `Data`."""
    from tlrun.config.build import build

    data = build(conf, "data", options=options)
    if not isinstance(data, Data):
        raise ConfigError(f"{conf['_target_']} must return tlrun.data.problems.pair.Data")
    return data


def _own_classes(target: Splits, classes: tuple[str, ...]) -> tuple[str, ...] | None:
    """The target's classes if they are others than the source's; None if they are the same."""
    class_lists = [s.classes for s in (target.train, target.test) if s is not None and s.classes]
    return class_lists[0] if class_lists and set(class_lists[0]) != set(classes) else None


def load_splits(conf: Mapping[str, Any], domain: str, options: Options) -> Splits:
    """The sets of `data.<domain>`. Raises ConfigError if it names no data set."""
    from tlrun.config.build import build

    block = conf.get(domain)
    if not isinstance(block, Mapping) or "_target_" not in block:
        raise ConfigError(
            f"data.{domain} must name a data set (_target_); see conf/data/digits_digitsm.yaml."
        )
    splits = build(
        block,
        f"data.{domain}",
        seed=options.seed,
        size=stored_side(conf),
        download=options.allow_download,
        **interpolation_of(block, conf.get("interpolation")),
    )
    if not isinstance(splits, Splits):
        raise ConfigError(
            f"data.{domain}: {block['_target_']} must return tlrun.data.examples.splits.Splits."
        )
    _warn_of_equal_sets(splits)
    return splits


def _warn_of_equal_sets(splits: Splits) -> None:
    """Say so if the test is the training set, unless the protocol has it so (one object)."""
    train, test = splits.train, splits.test
    if test is None or test is train or len(test) != len(train):
        return
    if test.checksum == train.checksum:
        kind = "rows" if len(train.shape) == 1 else "images"
        log.warning("%s: the test %s are the training %s", train.name, kind, kind)


def behind_firewall(target: Splits, options: Options) -> tuple[ImageSet, ImageSet | None, int]:
    """(train, val, labels held) of the target."""
    labels, val_labels, seed = options.target_labels, options.target_val_labels, options.seed
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


def preprocess_of(
    conf: Mapping[str, Any], source: ImageSet, fit: str, grey: GreyRange | None = None
) -> Preprocess:
    """`data.normalize` as a module; `auto` that nobody has resolved means no pretrained weights."""
    mode = str(conf.get("normalize") or "none")
    if mode == "auto":
        mode = AUTO_NORMALIZE if len(source.shape) == 3 else "none"
    mean, std = conf.get("mean"), conf.get("std")
    channels = int(conf.get("channels") or 3)
    interpolation = str(conf.get("interpolation") or "auto")
    if mode == "standard" and (mean is None or std is None):
        mean, std = _statistics(source, Preprocess(source.shape, "none", channels=channels))
    stored = {}
    if len(source.shape) == 3 and stored_side(conf) != conf.get("size"):
        stored = {"size": conf["size"], "resize": source.shape[1]}
    return Preprocess(
        source.shape,
        mode,
        channels=channels,
        mean=mean,
        std=std,
        fit=fit,
        grey=grey,
        interpolation=interpolation,
        **stored,
    )


def interpolation_of(block: Mapping[str, Any], interpolation: str | None) -> dict[str, str]:
    """`data.interpolation` as an argument of the data set of `block`; {} for one that takes none,
    such as digits of one size."""
    takes = inspect.signature(locate(str(block["_target_"]))).parameters
    if interpolation is None or "interpolation" not in takes:
        return {}
    return {"interpolation": interpolation}


def stored_side(conf: Mapping[str, Any]) -> int | None:
    """The side at which images are kept, `data.resize`; the net sees a crop of `data.size`.

    By itself it is `data.size`, or 8/7 of it (256 for 224) where training takes random crops.
    """
    size, resize = conf.get("size"), conf.get("resize")
    if resize is not None or size is None:
        return resize
    augment = conf.get("augment") or {}
    crops = any((ops or {}).get("random_resized_crop") for ops in augment.values())
    return round(size * 8 / 7) if crops else size


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
