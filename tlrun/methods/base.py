"""The contract of a transfer method: what it needs, what it builds, what one step optimises.

A method never touches optimizers, devices, checkpoints or files; the engine owns those. It states
losses and the parts of the net that each of them may change:

    class SourceOnly(Method):
        def step(self, net, batch, phase, progress):
            out = net(batch["source"].x)
            yield Update({"classification": cross_entropy(out.logits, batch["source"].y)})

`step` is a generator and EACH yielded `Update` is one optimizer update. No context manager and no
autograd graph may be alive across a yield: the engine runs backward and the optimizer there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from torch import Tensor

from tlrun.methods.query import Query
from tlrun.models.batch_norm import FROZEN
from tlrun.models.net import Net

if TYPE_CHECKING:  # methods know the shape of the data, not how they are read
    from tlrun.data.pipeline.streams import Batch
    from tlrun.data.problems.pair import Data

Batches: TypeAlias = "Mapping[str, Batch]"  # of one step, by the name of the stream


@dataclass(frozen=True)
class Requirements:
    """What a method must be given; checked before anything is built.

    streams: domains it draws training batches from, in the order of its batches.
    target_labels: the default of `target_labels=auto`: "none", "all" or k per class.
    target_images: False if the method must not see the target at all.
    shared_classes: False if source and target may have different classes (a head for each).
    kind: of data that it is made for, `Data.kind` (class, or a kind with an evaluator of its own).
    sources: the least number of single sources (`Data.sources`), each a stream of its own.
    open_set: True if the target must have classes that the source lacks (data.label_spaces=open).
    source_labels: False if it reads no label of the source, which may then have none; without
    target labels it learns no classes, and its features are scored.
    """

    streams: tuple[str, ...] = ("source",)
    target_labels: str | int = "none"
    target_images: bool = True
    shared_classes: bool = True
    kind: str = "class"
    sources: int = 1
    open_set: bool = False
    source_labels: bool = True


@dataclass(frozen=True)
class Progress:
    """Where the phase stands. `step` counts from 0 to `total` - 1; λ and lr depend on both."""

    step: int
    total: int

    @property
    def fraction(self) -> float:
        """p in [0, 1): share of the phase that is done."""
        return self.step / max(self.total, 1)


@dataclass
class DomainOutput:
    """What one domain's forward pass produced, for terms that look at the same batch.

    views: further views of its images, if the method hands on those of its batch.
    """

    x: Tensor
    features: Tensor | None = None
    logits: Tensor | None = None
    y: Tensor | None = None
    views: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Update:
    """One optimizer update.

    losses: name -> scalar tensor; their sum is minimised.
    tasks: which of them are the losses of tasks; `balance` combines these, then the sum is taken.
    parts: dotted part names that this update may change; None = every trainable part.
    main: terms join main updates only.
    outputs: domain -> DomainOutput, for terms.
    metrics: name -> scalar tensor to log that is not minimised (λ, domain accuracy ...).
    """

    losses: dict[str, Tensor]
    parts: tuple[str, ...] | None = None
    main: bool = True
    tasks: tuple[str, ...] = ()
    outputs: dict[str, DomainOutput] = field(default_factory=dict)
    metrics: dict[str, Tensor | float] = field(default_factory=dict)


@dataclass
class Phase:
    """A stretch of training with its own optimizer, schedule and streams.

    steps None = `trainer.steps` / `trainer.epochs` (0 = no optimizer: `start` does the work).
    parts: the parts that exist and train in it (None = all). frozen: patterns of parts or stages.
    optimizer / schedule: overrides merged over the config's own. epoch_stream: what "an epoch"
    counts. refresh_every: steps between calls of `Method.refresh` (None = never).
    terms: whether the chosen terms join (a penalty on leaving the source weights must not act while
    these are learned); "continue" = they join as an earlier phase started them.
    transfer: `transfer.*` decides at its start what is carried over into it.
    sampling: stream name -> a callable with the arguments of `data.streams.Stream`, where batches
    are not plain ones (episodes).
    views: stream name -> further views of its images that `step` wants in `Batch.views`: "clean"
    (no augmentation), "weak" (another draw of the stream's own), "strong"
    (`data.augment.<stream>_strong`).
    """

    name: str = "train"
    streams: tuple[str, ...] = ("source",)
    parts: tuple[str, ...] | None = None
    frozen: tuple[str, ...] = ()
    steps: int | None = None
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    epoch_stream: str | None = None
    refresh_every: int | None = None
    terms: bool | Literal["continue"] = True
    transfer: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)
    views: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class Output:
    """What `predict` returns for a batch: scores (B, K) (logits) or boxes (B, 4), and features.

    scores None: there is no head for this domain yet (an earlier phase); no figures are written.
    """

    scores: Tensor | None = None
    boxes: Tensor | None = None
    features: Tensor | None = None


def _declare_anew(cls: type, written: str) -> None:
    """A class that writes this function and not its declarations is given the careful ones, not
    those of its parent: it needs images, and takes no soft labels."""
    if written in vars(cls):
        for name, careful in (("needs_images", True), ("takes_soft_labels", False)):
            if name not in vars(cls):
                setattr(cls, name, careful)


class Method:
    """Base class: supervised training on the first stream. Override what differs.

    Constructor arguments of a subclass are exactly the keys of its `conf/method/<name>.yaml`.
    `batch_norm` (joint | separate_forward | per_domain) and `init` are the method's own choice; the
    top-level keys of these names replace them as the method is built (methods/build.py).
    frozen_statistics: `batch_norm=frozen`, under which it forwards as with joint. init:
    where the weights come from that the target is trained from: "source" = a source phase of its
    own, "pretrained", "scratch", the folder of another run, or "auto" = as `backbone.weights` says.
    needs_images: whether `step`, or a net beside `net`, does more with images than give them to
    `net`, or the phases in which it does. Where not, `Batch.x` may be what the frozen stages of the
    net have made of them. takes_soft_labels: whether `step` can do with labels (B, K), of mixed
    images (`data.augment.<domain>.mixup`): it gives them to `classification_loss` alone.
    training_parts: parts that `predict` does without: what is loaded, exported or started from
    (`init=RUN_DIR`) leaves them out.
    """

    requirements: Requirements = Requirements()
    batch_norm: str = "joint"
    frozen_statistics: bool = False
    init: str = "auto"
    balanced: bool = False  # its updates name `tasks`, so that `balance` has something to combine
    needs_images: bool | tuple[str, ...] = True
    takes_soft_labels: bool = False
    training_parts: tuple[str, ...] = ()
    taps: tuple[str, ...] = ()  # stages, or patterns, whose outputs it looks at or changes

    def __init_subclass__(cls) -> None:
        """Who writes a `step` says anew whether it needs images, and what labels it takes."""
        super().__init_subclass__()
        _declare_anew(cls, "step")

    def phases(self, data: Data) -> list[Phase]:
        """The phases in order. Default: one, over the streams in `requirements`."""
        return [Phase(streams=self.requirements.streams)]

    def source_phases(self) -> list[Phase]:
        """The source phase of a method that has one, unless the weights come from elsewhere."""
        return [Phase("source", ("source",), terms=False)] if self.init == "source" else []

    @property
    def needs_source(self) -> bool:
        """Whether it must be given source images: in its batches, or to learn from first."""
        return "source" in self.requirements.streams or self.init == "source"

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        """Add parts to the net: structure only, no training state.

        Called when fresh, on resume and for predict.
        """

    def check(self, phase: Phase, net: Net, data: Data) -> None:
        """Raise ConfigError where `start` would for want of something, before any phase is trained.

        net: as the phase will find it, but for its weights: parts, `carried`, what is frozen.
        """

    def start(self, phase: Phase, net: Net, data: Data) -> None:
        """Once per phase, never on resume: snapshots, closed forms."""

    def shown(self, phase: Phase) -> Mapping[str, tuple[str, ...]]:
        """What the main updates of a phase show terms: domain -> which of features, logits, labels
        (those that the images have). Default: all of every stream. A term that reads more is
        refused before training.
        """
        return dict.fromkeys(phase.streams, ("features", "logits", "labels"))

    def refresh(self, phase: Phase, net: Net, data: Data, progress: Progress) -> None:
        """Every `phase.refresh_every` steps, for work that needs a pass over a whole set."""

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        """Yield the updates of one step of a phase. batch: one Batch for each of its streams."""
        raise NotImplementedError

    def predict(self, net: Net, x: Tensor, query: Query) -> Output:
        """x: (B, ...) preprocessed -> scores (B, K). Called in eval mode under no_grad."""
        out = net(x, query.domain)
        return Output(scores=out.logits, features=out.features)

    def prediction_parts(self, parts: Mapping[str, Mapping[str, Tensor]]) -> Mapping[str, Any]:
        """The parts of a checkpoint with those that predict under the names of a plain net.

        For `init=RUN_DIR`: a run goes on from what the other one predicts with.
        """
        return {name: part for name, part in parts.items() if name not in self.training_parts}

    def baselines(self, data: Data) -> dict[str, dict[str, Any]]:
        """What `baseline=true` trains for comparison: folder in the run's own -> changed keys.

        A group with a name stands for that option with its defaults; other keys may be dotted.
        """
        if self.requirements.kind != "class" or not data.sources:
            return {}
        mode = FROZEN if self.frozen_statistics else "auto"
        fresh = {"batch_norm": mode, "target_labels": "auto", "terms": {}, "phases": {}}
        if self.init == "source":  # it has no source phase before its own
            fresh["init"] = "auto"
        return {"baseline": {"method": "source_only", **fresh}}

    def explain_predictions(self, net: Net, x: Tensor, classes: Sequence[str]) -> list[str]:
        """What `tlrun predict` says beside each of B labels; [] = nothing. classes: of scores."""
        return []

    def adapt(self, net: Net, support_or_stream: Any) -> Net:
        """Adaptation at test time, on a copy of the net. Default: none."""
        return net

    def state_dict(self) -> dict[str, Any]:
        """State beyond the net (anchors, running averages): tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""


class Term:
    """A loss that joins the main updates of any method (`terms=[l2_sp]`).

    domains: of whose images it must be shown some in every phase that it joins. reads: which of
    features, logits, labels it must be shown of each of them (`Method.shown`). decays_weights:
    whether it is a weight decay of its own kind; one of the optimizer beside it is then refused.
    one_target: whether it looks at the data of "the" target, so that it cannot join several tasks.
    batch_statistics: whether it acts on batch norms that train: `batch_norm=frozen` leaves it
    nothing to do. published_head: whether it wants the head that published weights came with: under
    `init=pretrained` it is then a part of the net. views: stream name -> further views of its
    images, as `Phase.views`; a method that hands them on has them in `DomainOutput.views`.
    needs_images, takes_soft_labels: as a method's.
    """

    domains: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    decays_weights: bool = False
    one_target: bool = False
    batch_statistics: bool = False
    published_head: bool = False
    views: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    needs_images: bool = True
    takes_soft_labels: bool = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _declare_anew(cls, "loss")

    def build(self, net: Net) -> None:
        """Add parts to the net that train with it, after the method's own, in the phases that it
        joins: structure only. `predict` and `init=RUN_DIR` leave them out.
        """

    def attach(self, net: Net) -> None:
        """Hook into modules of the net: after each phase has built its parts, on resume too.

        Called several times for one net: take back what an earlier call did. What a term changes
        must act in training alone, since `predict` knows no terms.
        """

    def check(self, net: Net, data: Data) -> None:
        """Raise ConfigError for what `start` or `loss` would not find: as `Method.check`."""

    def start(self, net: Net, data: Data) -> None:
        """Once per phase, never on resume."""

    def loss(self, update: Update, net: Net) -> dict[str, Tensor]:
        """Losses to add to this update, by name."""
        return {}

    def grad_(self, net: Net) -> None:
        """Add to the gradients in place: after unscaling and averaging, before clipping.

        For penalties on the weights alone, whose gradient is known without a graph.
        """

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
