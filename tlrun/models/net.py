"""A `Net` is named parts: a backbone with named stages, and heads.

    net = Net(backbone, (3, 28, 28))          # backbone: nn.Module with .feature_dim, .stage_names
    net.add("classifier", net.new_head(10))   # a method adds its heads by name
    out = net(x, domain="target", head="classifier", taps=("backbone.conv2",))
    out.features, out.logits, out.taps["backbone.conv2"]

A checkpoint is {part: state dict}, so carrying layers over, freezing some, or using one head alone
is a choice of dotted names: `backbone`, `backbone.layer1`, `classifier`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from tlrun.errors import ConfigError, did_you_mean
from tlrun.models.batch_norm import (
    has_batch_norm,
    hold_statistics,
    norms_with_statistics,
    statistics_of,
)
from tlrun.models.heads import Classifier
from tlrun.models.prefix import Entry

PUBLISHED_HEAD = "published_classifier"  # the part that the backbone's weights came with, if kept
PROJECTOR = "projector"  # the part that a term adds: it only teaches, and nothing starts from it
CARRIED = "@carried"  # as a pattern: the stages whose weights were carried over
NO_STATISTICS = (
    "batch_norm=frozen keeps those that a net has learned elsewhere; set init=pretrained or "
    "init=RUN_DIR, or leave it out"
)
SLICE = re.compile(r"(\w*)\[(-?\d*):(-?\d*)\]")  # backbone[:-1]


@dataclass
class Forward:
    """features: (B, D) of the backbone; logits: (B, K) or None; taps: stage name -> its output."""

    features: Tensor
    logits: Tensor | None = None
    taps: dict[str, Tensor] = field(default_factory=dict)


class Net(nn.Module):
    """Named parts in the order in which data flows through them.

    Each call says of which domain its images are: per-domain layers use its statistics.
    """

    def __init__(
        self,
        backbone: nn.Module,
        input_shape: Sequence[int],
        head: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"backbone": backbone})
        self.input_shape = tuple(input_shape)
        self.head_options = dict(head or {})  # arguments of Classifier: `backbone.head.*`
        self.main_head = "classifier"
        self.carried: tuple[str, ...] = ()  # stages whose weights were transferred (transfer.py)
        self.held: tuple[str, ...] = ()  # batch norms that keep their statistics (batch_norm.py)
        self.entry: Entry | None = None  # where passes begin that are given activations (prefix.py)
        self.learned: dict[str, str] = {}  # heads of earlier tasks -> the stream of their images

    # ---- structure ------------------------------------------------------------------------

    def add(self, name: str, module: nn.Module) -> nn.Module:
        """Add a part; one of that name that exists is kept (build is called again on resume)."""
        if name not in self.parts:
            self.parts[name] = module
        return self.parts[name]

    def new_head(self, num_classes: int, in_dim: int | None = None) -> nn.Module:
        """A fresh classifier on the features, as `backbone.head` describes it."""
        return Classifier(in_dim or self.feature_dim, num_classes, **self.head_options)

    def width_of(self, stage: str) -> int:
        """Size of a stage's flattened output for one example, found by a forward pass of zeros."""
        probe = torch.zeros(2, *self.input_shape, device=next(self.parameters()).device)
        was_training = self.training
        self.eval()
        with torch.no_grad():
            out = self(probe, taps=(stage,)).taps
        self.train(was_training)
        if stage not in out:
            raise ConfigError(
                f"stage '{stage}' is not part of the forward pass: "
                f"{did_you_mean(stage, self.stages())}"
            )
        return out[stage].flatten(1).shape[1]

    @property
    def backbone(self) -> nn.Module:
        return self.parts["backbone"]

    @property
    def feature_dim(self) -> int:
        return int(self.backbone.feature_dim)  # type: ignore[arg-type]

    def __getitem__(self, part: str) -> nn.Module:
        if part not in self.parts:
            raise ConfigError(f"no part '{part}' in this net: {did_you_mean(part, self.parts)}")
        return self.parts[part]

    def stages(self) -> list[str]:
        """Dotted names of all stages in forward order; a part without any is one."""
        names: list[str] = []
        for part, module in self.parts.items():
            inner = getattr(module, "stage_names", ())
            names += [f"{part}.{stage}" for stage in inner] or [part]
        return names

    def select(self, patterns: Iterable[str]) -> list[str]:
        """Stage names that match, in forward order.

        A pattern is a stage, a parent (`backbone`), a glob (`backbone.layer*`), a slice of a part's
        stages (`backbone[:-1]`: all but the last) or of the way from the input to the main head
        (`[:3]`: the first three), or CARRIED. Raises ConfigError with the nearest name for one that
        matches nothing; a slice and CARRIED may be empty.
        """
        stages = self.stages()
        chosen: list[str] = []
        for pattern in patterns:
            if pattern == CARRIED:
                chosen += self.carried
                continue
            if cut := SLICE.fullmatch(pattern):
                first, last = (int(bound) if bound else None for bound in cut.group(2, 3))
                chosen += self.path(cut[1])[first:last]
                continue
            hit = [
                s
                for s in stages
                if s == pattern or s.startswith(pattern + ".") or fnmatchcase(s, pattern)
            ]
            if not hit:
                known = [*self.parts, *stages]
                raise ConfigError(
                    f"no part or stage matches '{pattern}': {did_you_mean(pattern, known)}"
                )
            chosen += hit
        return [s for s in stages if s in chosen]

    def path(self, part: str = "") -> list[str]:
        """Stages of a part, or from the input through the backbone to the main head's output."""
        if part:
            self[part]  # a clear error for a name that is wrong
        wanted = (part,) if part else ("backbone", self.main_head)
        return [stage for stage in self.stages() if stage.partition(".")[0] in wanted]

    def module_of(self, name: str) -> nn.Module:
        """The module of a part (`classifier`) or stage (`backbone.conv1`)."""
        part, _, inner = name.partition(".")
        module = self[part]
        try:
            return module.get_submodule(inner)  # "" is the module itself
        except AttributeError as error:
            raise ConfigError(
                f"no stage '{name}' in this net: {did_you_mean(name, self.stages())}"
            ) from error

    def parameters_in(self, name: str) -> list[nn.Parameter]:
        """Parameters of a part or stage, frozen ones too.

        What lies in no stage (a transformer's class token and positions) belongs to the first one.
        """
        found = list(self.module_of(name).parameters())
        part, _, stage = name.partition(".")
        inner = list(getattr(self[part], "stage_names", ()))
        if stage in inner[:1]:
            staged = {id(p) for s in inner for p in self[part].get_submodule(s).parameters()}
            found += [p for p in self[part].parameters() if id(p) not in staged]
        return found

    def set_frozen_eval(self, stages: Iterable[str]) -> None:
        """eval() for stages and what belongs to them: batch statistics and dropout stay put.

        As in `parameters_in`, what has tensors but lies in no stage belongs to the first one; a
        module without any (a dropout between stages) to the part as a whole.
        """
        held = set(stages)
        for stage in held:
            self.module_of(stage).eval()
        for part, module in self.parts.items():
            own = [f"{part}.{stage}" for stage in getattr(module, "stage_names", ())] or [part]
            if held.issuperset(own):
                module.eval()
            elif own[0] in held:
                for loose in self._outside_stages(part):
                    if any(True for _ in (*loose.parameters(False), *loose.buffers(False))):
                        loose.eval()

    def hold_statistics(self, names: Iterable[str] | None = None) -> None:
        """`batch_norm=frozen`: these batch norms keep their statistics from here on.

        names: as `held` of a checkpoint; None = all that have learned some by now. Raises
        ConfigError if the net has batch norms and none of them has.
        """
        self.held = tuple(norms_with_statistics(self) if names is None else names)
        if names is None and not self.held and has_batch_norm(self):
            raise ConfigError(f"no batch norm of this net has statistics yet: {NO_STATISTICS}")
        hold_statistics(self, self.held)

    def _outside_stages(self, part: str) -> list[nn.Module]:
        """Modules of a part that lie in no stage and hold none."""
        module = self[part]
        names = [str(stage) for stage in getattr(module, "stage_names", ())]
        return [
            inner
            for name, inner in module.named_modules()
            if name
            and not any(f"{name}.".startswith(f"{s}.") or s.startswith(f"{name}.") for s in names)
        ]

    def parameters_of(self, names: Iterable[str] | None = None) -> Iterator[nn.Parameter]:
        """Trainable parameters of parts or stages (all parts if None), each once."""
        seen: set[int] = set()
        for name in self.parts if names is None else names:
            for parameter in self.parameters_in(name):
                if parameter.requires_grad and id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter

    # ---- forward --------------------------------------------------------------------------

    def run(self, part: str, x: Tensor, domain: str = "source") -> Tensor:
        """One part alone, with the batch statistics of a domain. x: what it takes, (B, ...)."""
        with statistics_of(domain, self):
            out: Tensor = self._through_backbone(x) if part == "backbone" else self[part](x)
        return out

    def _through_backbone(self, x: Tensor) -> Tensor:
        """x: images, or activations of `entry`."""
        if self.entry is not None and self.entry.admits(x):
            return self.entry.rest(self.backbone, x)
        out: Tensor = self.backbone(x)
        return out

    def features(self, x: Tensor, domain: str = "source") -> Tensor:
        """x: (B, C, H, W) or (B, D) -> (B, feature_dim)."""
        return self.run("backbone", x, domain)

    def forward(
        self,
        x: Tensor,
        domain: str = "source",
        *,
        head: str | None = "",
        taps: Iterable[str] = (),
    ) -> Forward:
        """Features, and logits of `head` ("" = the main head if any, None = features only).

        x: (B, ...) of one domain, "source" or "target". taps: stages whose outputs to return too.
        """
        caught: dict[str, Tensor] = {}
        hooks = [
            self.module_of(name).register_forward_hook(
                lambda _module, _inputs, output, name=name: caught.__setitem__(name, output)
            )
            for name in taps
        ]
        if head == "":
            head = self.main_head if self.main_head in self.parts else None
        try:
            with statistics_of(domain, self):
                features = self._through_backbone(x)
                logits = self[head](features) if head else None
        finally:
            for hook in hooks:
                hook.remove()
        return Forward(features, logits, caught)
