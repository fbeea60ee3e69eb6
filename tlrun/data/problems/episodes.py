"""Episodes: N classes, k support and q query images of each; data of base / validation / novel
classes.

A training batch holds whole episodes, class after class, support before query:

    x: (episodes x way x (shot + query), C, H, W)      split(x, shape) -> support, query

Which classes and images make up episode number i is a hash of (seed, stream, i), so a resumed run
sees the same ones. Vinyals et al., "Matching Networks for One Shot Learning", NeurIPS 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from tlrun.config.ranges import BelowOne, Count, Distinct, Interpolation, Normalize, Pixels
from tlrun.data.examples.decode import GreyRange
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.splits import Card
from tlrun.data.pipeline.augment import Augment
from tlrun.data.pipeline.hashing import hashes, permutation
from tlrun.data.pipeline.streams import Batch, Stream
from tlrun.data.problems.label_space import EpisodeFacts, Images, Shape, Task, Way
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import Data, Domain, interpolation_of, preprocess_of
from tlrun.errors import ConfigError, DataError
from tlrun.messages import plural


@dataclass
class EpisodeBatch(Batch):
    """A batch of whole episodes; y are the labels in the set, not those of the episodes."""

    shape: Shape = field(default_factory=lambda: Shape(2, 1, 1))


class ClassTable:
    """The images of every class of a set, to draw episodes from."""

    def __init__(self, examples: ImageSet, shape: Shape, where: str) -> None:
        """Raises ConfigError if the set has too few classes, or a class too few images."""
        if examples.labels is None or examples.classes is None:
            raise DataError(f"{where}: episodes need labels; give a folder per class.")
        labels = examples.labels.cpu()
        counts = torch.bincount(labels, minlength=len(examples.classes))
        if len(counts) < shape.way:
            key = "data.train.way" if where == "base classes" else "the way in data.tests"
            raise ConfigError(
                f"{shape.way}-way episodes need {shape.way} classes, but the {where} have "
                + (f"{len(counts)}: lower {key}" if len(counts) > 1 else "only one: add classes")
            )
        few = (counts < shape.shot + shape.query).nonzero()
        if len(few):
            name, count = examples.classes[int(few[0])], int(counts[few[0]])
            raise ConfigError(
                f"class '{name}' of the {where} has {plural(count, 'image')}, fewer than the "
                f"{shape.shot} support + {shape.query} query images of an episode: lower "
                "one of these"
            )
        self.counts, self.shape = counts, shape
        self.order = torch.argsort(labels, stable=True)  # class after class
        self.first = counts.cumsum(0) - counts

    def draw(self, *key: object) -> Tensor:
        """(way, shot + query) int64: the images of the episode that belongs to the key."""
        classes = permutation(len(self.counts), "classes", *key)[: self.shape.way]
        counts = self.counts[classes]
        most = int(counts.max())
        ranks = hashes(len(classes) * most, "images", *key).reshape(len(classes), most)
        ranks[torch.arange(most) >= counts[:, None]] = torch.iinfo(torch.int64).max
        chosen = ranks.argsort(dim=1, stable=True)[:, : self.shape.shot + self.shape.query]
        return self.order[self.first[classes][:, None] + chosen]


class EpisodeStream(Stream):
    """The training batches as episodes. `trainer.batch_size` plays no part: `shape` decides."""

    def __init__(self, name: str, examples: ImageSet, *, shape: Shape, **options: Any) -> None:
        if shape.episodes % int(options.get("world", 1)):
            raise ConfigError(
                f"data.train.episodes={shape.episodes} must divide by trainer.nodes x "
                f"trainer.devices={options['world']}"
            )
        options["batch_size"] = shape.images
        super().__init__(name, examples, **options)
        self.shape = shape
        self.table = ClassTable(examples, shape, "base classes")

    def positions(self, step: int) -> tuple[Tensor, Tensor]:
        """Whole episodes to each rank; the "epoch" of an image is its episode, for augmentation."""
        numbers = range(step * self.shape.episodes, (step + 1) * self.shape.episodes)
        numbers = numbers[self.rank :: self.world]
        index = torch.stack([self.table.draw(self.seed, self.name, i) for i in numbers])
        epoch = torch.tensor(list(numbers))[:, None, None].expand_as(index)
        return epoch.flatten(), index.flatten()

    def batch(self, step: int) -> EpisodeBatch:
        drawn = super().batch(step)
        return EpisodeBatch(drawn.x, drawn.y, drawn.index, self.shape)


def split(x: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """x: (E way (shot + query), ...) -> support (E, way shot, ...), query (E, way query, ...).

    E follows from the number of rows, so it holds for a piece of a batch too.
    """
    if len(x) % (shape.way * (shape.shot + shape.query)):
        raise ConfigError(
            f"data.train.episodes={shape.episodes} must divide by trainer.accumulate: a piece of "
            "a batch holds whole episodes"
        )
    x = x.unflatten(0, (-1, shape.way, shape.shot + shape.query))
    return x[:, :, : shape.shot].flatten(1, 2), x[:, :, shape.shot :].flatten(1, 2)


def labels_of(way: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """(way x count,) int64: 0..way-1, each `count` times: of support or query images in order."""
    return torch.arange(way, device=device).repeat_interleave(count)


# ---- data -----------------------------------------------------------------------------------


@dataclass
class FixedEpisodes:
    """Published episodes with images of their own. support, query: (R, n) indices into `examples`;
    their labels, of the same shapes, from 0 to way - 1."""

    name: str
    examples: ImageSet
    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor


@dataclass
class ClassSplits:
    """Three sets of disjoint classes, which a function of `data/sets` returns."""

    base: ImageSet
    val: ImageSet
    novel: ImageSet
    card: Card
    fit: str = "squash"
    fixed: tuple[FixedEpisodes, ...] = ()
    grey: GreyRange = field(default_factory=dict)


@dataclass
class EpisodeData(Data):
    """source_train = base, source_val = validation, target_test = novel classes; source_test =
    images of the base classes that `base_test` has held back.

    tests: episodes of the final figures; the first is also used during training. val_episodes:
    their number then. test_episodes: their number at the end.
    """

    tests: tuple[Shape, ...] = ()
    val_episodes: int = 100
    test_episodes: int = 600
    fixed: tuple[FixedEpisodes, ...] = ()


def episodes(
    *,
    options: Options,
    name: str,
    classes: dict[str, Any],
    size: Pixels,
    channels: Literal[1, 3],
    normalize: Normalize,
    augment: dict[str, Any],
    train: dict[str, Any],
    tests: Annotated[Sequence[tuple[Way, Images]], Distinct()],
    query: Images,
    val_episodes: Count,
    test_episodes: Count,
    interpolation: Interpolation = "auto",
    base_test: BelowOne = 0.0,
) -> EpisodeData:
    """classes: what builds the `ClassSplits`. train: way, shot, query and episodes of a batch.

    tests: (way, shot) pairs of the figures, with `query` queries a class. base_test: share of the
    images of each base class that is not trained on, for figures of base and novel classes
    together; 0 = no such figures. Raises ConfigError.
    """
    from tlrun.config.build import build

    if options.target_labels != "none":
        raise ConfigError(
            f"target_labels={options.target_labels}: here the labels of novel classes are the "
            "support of each episode (data.tests); use target_labels=auto"
        )
    how = interpolation_of(classes, interpolation)
    splits = build(classes, "data.classes", seed=options.seed, size=size, **how)
    if not isinstance(splits, ClassSplits):
        raise ConfigError(
            f"{classes['_target_']} must return tlrun.data.problems.episodes.ClassSplits"
        )
    if unknown := set(augment) - {"source"}:
        raise ConfigError(f"data.augment.{unknown.pop()}: only source (base classes) is trained on")
    if not tests:
        raise ConfigError("data.tests: give pairs of way and shot, [[5, 1], [5, 5]]")
    shapes = tuple(
        Shape.of({"way": way, "shot": shot, "query": query}, "data.tests") for way, shot in tests
    )
    trained = Shape.of(train, "data.train")
    base, held = held_back(splits.base, base_test, options.seed)
    splits = replace(splits, base=base)
    tasks = _class_tasks(splits)
    _check_episodes(splits, trained, shapes)
    card = splits.card
    conf = {"normalize": normalize, "interpolation": interpolation, "channels": channels}
    return EpisodeData(
        name=name,
        domains={
            "source": Domain(f"{card.name}, base classes", base, splits.val, held, card),
            "target": Domain(f"{card.name}, novel classes", None, None, splits.novel, card),
        },
        tasks=tasks,
        preprocess=preprocess_of(conf, splits.base, splits.fit, splits.grey),
        augment={"source": Augment(augment.get("source"))},
        evaluator="episodes",
        facts=EpisodeFacts(trained, [(way, shot) for way, shot in tests]),
        tests=shapes,
        val_episodes=val_episodes,
        test_episodes=test_episodes,
        fixed=splits.fixed,
    )


def _class_tasks(splits: ClassSplits) -> dict[str, Task]:
    base, novel = splits.base.classes, splits.novel.classes
    assert base is not None
    assert novel is not None
    return {
        "class": Task("class", "class", novel, "target"),
        "source": Task("source", "class", base, "source"),
    }


def _check_episodes(splits: ClassSplits, trained: Shape, tests: Sequence[Shape]) -> None:
    """A clear error now rather than at the first episode. Raises ConfigError."""
    ClassTable(splits.base, trained, "base classes")
    ClassTable(splits.val, tests[0], "validation classes")
    for shape in tests:
        ClassTable(splits.novel, shape, "novel classes")


def held_back(examples: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet | None]:
    """The images without, and with, a seeded `share` of each class, at least one of each; (all,
    None) for 0. Raises ConfigError if a class has no other image."""
    if not share:
        return examples, None
    assert examples.labels is not None
    assert examples.classes is not None
    held = torch.zeros(len(examples), dtype=torch.bool)
    for number, name in enumerate(examples.classes):
        rows = (examples.labels.cpu() == number).nonzero().flatten()
        if len(rows) < 2:
            raise ConfigError(
                f"data.base_test={share}: the base class '{name}' has one image; it needs two"
            )
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        held[rows[permutation(len(rows), "base_test", seed, name)[:count]]] = True
    return examples.subset((~held).nonzero().flatten()), examples.subset(held.nonzero().flatten())


def split_classes(
    examples: ImageSet, groups: Sequence[Sequence[int]]
) -> tuple[ImageSet, ImageSet, ImageSet]:
    """The three sets with the class numbers `groups` = (base, val, novel), labelled anew from 0."""
    assert examples.labels is not None
    assert examples.classes is not None
    out = []
    for group in groups:
        number = torch.full((len(examples.classes),), -1)
        number[torch.tensor(group, dtype=torch.int64)] = torch.arange(len(group))
        labels = number[examples.labels]
        rows = (labels >= 0).nonzero().flatten()
        names = [examples.classes[i] for i in group]
        chosen = examples.subset(rows)
        out.append(chosen.with_labels(labels[rows], names))
    return out[0], out[1], out[2]


def rotated(examples: ImageSet, turns: int) -> ImageSet:
    """Classes turned by 0, 90, ... degrees as classes of their own: `turns` (1 to 4) for each.

    Class c turned r times is number c turns + r, named "c" or "c@90". Copies the images.
    """
    if turns not in (1, 2, 3, 4):
        raise ConfigError(f"data.classes.rotations={turns}: choose 1 (none) to 4 turns of 90")
    if turns == 1:
        return examples
    assert examples.labels is not None
    assert examples.classes is not None
    images = examples.read(torch.arange(len(examples)))
    data = torch.cat([torch.rot90(images, r, (2, 3)) for r in range(turns)])
    labels = torch.cat([examples.labels * turns + r for r in range(turns)])
    names = [f"{c}@{90 * r}" if r else c for c in examples.classes for r in range(turns)]
    paths = None if examples.paths is None else examples.paths * turns
    return ImageSet(examples.name, data, labels, names, paths)
