"""`LabelSpace`: what a trained net knows of its data, and what else their problem is made of.

Data have one, label_space.json keeps it, and `predict` reads it: there it takes the place of the
data when a method builds its parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Annotated, Any, Self, TypeVar

from torch import Tensor

from tlrun.config.ranges import Range
from tlrun.config.schema import check_section
from tlrun.errors import DataError

Way = Annotated[int, Range(2, 10_000)]
Images = Annotated[int, Range(1, 10_000)]


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
        truth = columns[self.column] if self.column else labels
        if truth is None:
            raise DataError(f"there are no labels for the task '{self.name}'.")
        return truth


@dataclass(frozen=True)
class Shape:
    """way: classes of an episode. shot, query: images of each class. episodes: in one batch."""

    way: Way
    shot: Images
    query: Images
    episodes: Images = 1

    @classmethod
    def of(cls, spec: Mapping[str, Any], key: str) -> Shape:
        """From a mapping of the configuration; `key` for the message. Raises ConfigError."""
        check_section(spec, cls, f"{key}.", partial=True)
        return cls(**spec)

    @property
    def images(self) -> int:
        """Images in one batch."""
        return self.episodes * self.way * (self.shot + self.query)


# ---- facts: one dataclass a problem --------------------------------------------------------------


@dataclass(frozen=True)
class Facts:
    """What a method's `build` or an evaluator needs to know beside the classes. A pair has none.

    The fields are plain values for JSON, under the same keys in label_space.json.
    """

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class SourceFacts(Facts):
    """sources: names of the single sources, each a stream of its own."""

    sources: list[str]


@dataclass(frozen=True)
class TaskFacts(Facts):
    """target_task: whose figures are the headline. examples: domain -> its training images."""

    target_task: str
    examples: dict[str, int]


@dataclass(frozen=True)
class EpisodeFacts(Facts):
    """train: the episodes that are trained on. tests: (way, shot) of those of the figures."""

    train: Shape
    tests: list[tuple[int, int]]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EpisodeFacts:
        tests = [(way, shot) for way, shot in values["tests"]]
        return cls(Shape(**values["train"]), tests)


@dataclass(frozen=True)
class AttributeFacts(Facts):
    """attributes: a row per class in the order of the classes, None where a value is missing.

    attribute_names: of its columns. training, validation, unseen: names of the classes of each
    group. ready_features: whether the examples are features rather than images. gamma: calibration
    that the data set; None = chosen on held-out classes. leave_out: how many of the classes are
    unseen in turn; 0 = those of `unseen`.
    """

    attributes: list[list[float | None]]
    attribute_names: list[str]
    training: list[str]
    validation: list[str]
    unseen: list[str]
    ready_features: bool
    gamma: float | None
    leave_out: int = 0

    def group(self, name: str) -> list[str]:
        """The classes of "training", "validation" or "unseen"."""
        classes: list[str] = getattr(self, name)
        return classes


PROBLEMS: tuple[type[Facts], ...] = (SourceFacts, TaskFacts, EpisodeFacts, AttributeFacts)
AnyFacts = TypeVar("AnyFacts", bound=Facts)


def facts_from_json(values: Mapping[str, Any]) -> Facts:
    """The facts of the problem whose keys these are."""
    for problem in PROBLEMS:
        if {f.name for f in fields(problem) if f.default is MISSING} <= set(values):
            return problem.from_json(values)
    return Facts()


def facts_as(facts: Facts, problem: type[AnyFacts]) -> AnyFacts:
    """The facts as those of a problem. DataError if the data are of another one."""
    if not isinstance(facts, problem):
        raise DataError(f"these data have {type(facts).__name__}, not {problem.__name__}")
    return facts


# ---- the label space -----------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelSpace:
    """The classes and tasks that a net is built for, and the inputs that it takes.

    domains: their names. input_shape: (C, H, W) or (D,) of what the net is given. preprocess: the
    spec of `Preprocess`. feature_names: the columns of ready features in order; None for images,
    and where the files do not name them.
    """

    tasks: Mapping[str, Task]
    facts: Facts = field(default_factory=Facts)
    domains: tuple[str, ...] = ("source", "target")
    input_shape: tuple[int, ...] = ()
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    feature_names: tuple[str, ...] | None = None

    @property
    def main_task(self) -> str:
        """The name of the task whose figures are the headline."""
        return self.facts.target_task if isinstance(self.facts, TaskFacts) else "class"

    @property
    def classes(self) -> tuple[str, ...]:
        """Those of the main task."""
        return self.tasks[self.main_task].classes

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def source_classes(self) -> tuple[str, ...]:
        """Those of the source: `classes` unless the two domains have their own."""
        return self.tasks["source"].classes if "source" in self.tasks else self.classes

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the single sources, each a stream of its own; "source" is all of them.

        () for a target without a source.
        """
        if isinstance(self.facts, SourceFacts):
            return tuple(self.facts.sources)
        return () if tuple(self.domains) == ("target",) else ("source",)

    def to_json(self) -> dict[str, Any]:
        """For label_space.json: all that prediction needs to know about the data."""
        return {
            "classes": list(self.classes),
            "tasks": {
                t.name: {"kind": t.kind, "classes": list(t.classes), "domain": t.domain}
                for t in self.tasks.values()
            },
            "domains": list(self.domains),
            "facts": self.facts.to_json(),
            "input_shape": list(self.input_shape),
            "preprocess": dict(self.preprocess),
            **({"feature_names": list(self.feature_names)} if self.feature_names else {}),
        }

    @classmethod
    def from_json(cls, space: Mapping[str, Any]) -> LabelSpace:
        """space: a label_space.json whose keys have been checked (`RunDir.read_label_space`)."""
        names = space.get("feature_names")
        return cls(
            tasks={
                name: Task(name, task["kind"], tuple(task["classes"]), task.get("domain"))
                for name, task in space["tasks"].items()
            },
            facts=facts_from_json(space["facts"]),
            domains=tuple(space["domains"]),
            input_shape=tuple(space["input_shape"]),
            preprocess=space["preprocess"],
            feature_names=None if names is None else tuple(names),
        )
