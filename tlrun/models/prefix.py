"""Where a forward pass may begin: behind the frozen stages of a backbone, with their activations.

    entry = find_entry(net)          # the furthest stage behind which nothing below is trained
    a = prefix(net, entry, x)        # (B, ...) what that stage puts out, to be kept
    net.entry = entry
    net(a)                           # the same as net(x); images are still taken as well

What an input is, is told by its shape. A stage is an entry only if a trial says so: the backbone,
with all that it calls up to there replaced by the identity, makes of that stage's output what it
makes of the images, bit by bit. A residual net is one behind each block; a transformer, which adds
positions to what it is given, only as a whole.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tlrun.models.batch_norm import BatchNorm
from tlrun.models.repeatable import judging

if TYPE_CHECKING:
    from tlrun.models.net import Net

log = logging.getLogger(__name__)

WHOLE = "backbone"
PROBE = 2  # images of the trial


@dataclass(frozen=True)
class Entry:
    """stage: the last one that is left out, WHOLE for all of the backbone. shape: of its output for
    one image. bytes_each: of that. skipped: modules of the backbone that the identity replaces.
    """

    stage: str
    shape: tuple[int, ...]
    bytes_each: int
    skipped: tuple[str, ...] = ()

    def admits(self, x: Tensor) -> bool:
        """Whether x (B, ...) are activations of this place rather than images."""
        return tuple(x.shape[1:]) == self.shape

    def rest(self, backbone: nn.Module, x: Tensor) -> Tensor:
        """x: activations (B, *shape) -> features (B, D)."""
        if self.stage == WHOLE:
            return x
        with passed_over([backbone.get_submodule(name) for name in self.skipped]):
            out: Tensor = backbone(x)
        return out


class _Reached(Exception):
    """A forward pass has come to the stage that was asked for."""

    def __init__(self, out: Any) -> None:
        self.out = out


def find_entry(net: Net, taps: Iterable[str] = ()) -> Entry | None:
    """The furthest entry of a net in the mode that it trains in; None where nothing is frozen.

    taps: stages whose outputs are looked at, so that no pass may begin behind them.
    """
    stages = [stage for stage in net.stages() if stage.partition(".")[0] == WHOLE]
    tapped = [stages.index(stage) for stage in taps if stage in stages]
    x = trial_input(net)
    if not tapped and _is_still(net.backbone) and (whole := _whole(net, x)):
        return whole
    if stages == [WHOLE] or _is_compiled(net.backbone):
        return None
    still: list[str] = []
    for stage in stages[: min(tapped, default=len(stages)) + 1]:
        if any(parameter.requires_grad for parameter in net.parameters_in(stage)):
            break
        still.append(stage)
    for stage in reversed(still):
        entry = _tried(net, stage, x)
        if entry is not None:
            return entry
        log.debug("%s is frozen, but the net cannot begin behind it", stage)
    return None


def entry_before(net: Net, layer: str) -> Entry | None:
    """The entry behind the stage before that of a layer ("backbone.conv2.conv"); None without one.

    net: frozen and in eval mode, so that all below may be left out.
    """
    stages = [stage for stage in net.stages() if stage.partition(".")[0] == WHOLE]
    own = [i for i, stage in enumerate(stages) if f"{layer}.".startswith(f"{stage}.")]
    return _tried(net, stages[own[0] - 1], trial_input(net)) if own and own[0] else None


@torch.no_grad()
def prefix(net: Net, entry: Entry, x: Tensor) -> Tensor:
    """x: images (B, ...) -> what the frozen stages make of them (B, *entry.shape).

    In the mode in which the net is: those stages are in eval mode in training too.
    """
    if entry.stage == WHOLE:
        features: Tensor = net.backbone(x)
        return features
    return reach(net.backbone, _inner(entry.stage), x)[0]


def frozen_state(net: Net, entry: Entry) -> dict[str, Tensor]:
    """Parameters and buffers of all that is left out, by name in the backbone, and loose ones."""
    state: dict[str, Tensor] = net.backbone.state_dict()
    if entry.stage == WHOLE:
        return state
    staged = [stage for stage in net.backbone.stage_names if stage not in entry.skipped]  # type: ignore[union-attr]
    return {key: value for key, value in state.items() if not _inside(key, staged)}


def _whole(net: Net, x: Tensor) -> Entry | None:
    with torch.no_grad():
        features, alone = net.backbone(x), net.backbone(x[:1])
    return _entry(net, WHOLE, features, ()) if _alike(features[:1], alone) else None


def _tried(net: Net, stage: str, x: Tensor) -> Entry | None:
    """The entry behind a stage, None where the trial fails."""
    backbone, inner = net.backbone, _inner(stage)
    try:
        with judging(backbone), torch.enable_grad():
            out, skipped = reach(backbone, inner, x)
            alone, _ = reach(backbone, inner, x[:1])
        if not isinstance(out, Tensor) or out.requires_grad or not _alike(out[:1], alone):
            return None
        entry = _entry(net, stage, out, skipped)
        if entry is None or not _same_in_training(backbone, entry, x, out):
            return None
        with judging(backbone), torch.no_grad():
            given = out.clone()
            same = torch.equal(entry.rest(backbone, given), backbone(x))
        return entry if same and torch.equal(given, out) else None  # in place: not twice the same
    except Exception as error:  # whatever a backbone makes of an input of another shape
        log.debug("the net cannot begin behind %s: %s", stage, error)
        return None


def _entry(net: Net, stage: str, out: Tensor, skipped: Sequence[str]) -> Entry | None:
    """None where the activations could be taken for images, or depend on the domain."""
    shape = tuple(out.shape[1:])
    below = [net.backbone.get_submodule(name) for name in skipped] or [net.backbone]
    if shape == net.input_shape or out.ndim < 2 or any(map(_by_domain, _modules(below))):
        return None
    return Entry(stage, shape, out[0].numel() * out.element_size(), tuple(skipped))


def _same_in_training(backbone: nn.Module, entry: Entry, x: Tensor, out: Tensor) -> bool:
    """Whether the skipped modules do the same in training, without chance and without memory."""
    below = list(_modules(backbone.get_submodule(name) for name in entry.skipped))
    if any(m.training and any(True for _ in m.buffers(recurse=False)) for m in below):
        return False  # batch statistics would move
    cuda = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), torch.no_grad():
        before = _random_state(x.device)
        again, _ = reach(backbone, _inner(entry.stage), x)
        return torch.equal(again, out) and torch.equal(before, _random_state(x.device))


def _random_state(device: torch.device) -> Tensor:
    state = torch.get_rng_state()
    return torch.cat([state, torch.cuda.get_rng_state(device)]) if device.type == "cuda" else state


def reach(backbone: nn.Module, stage: str, x: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """The output of a stage, and the outermost modules that had been called by then."""
    called: list[str] = []

    def note(name: str, out: Any) -> None:
        called.append(name)
        if name == stage:
            raise _Reached(out)

    hooks = [
        module.register_forward_hook(lambda _m, _x, out, name=name: note(name, out))
        for name, module in backbone.named_modules()
        if name
    ]
    try:
        backbone(x)
    except _Reached as reached:
        outermost = [name for name in called if not _inside(name, called)]
        return reached.out, tuple(dict.fromkeys(outermost))
    finally:
        for hook in hooks:
            hook.remove()
    raise RuntimeError(f"{stage} is no part of the forward pass")


def _inside(name: str, others: Iterable[str]) -> bool:
    return any(name.startswith(f"{other}.") for other in others)


@contextmanager
def passed_over(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, these modules hand on what they are given."""
    own = [vars(module).get("forward") for module in modules]
    for module in modules:
        module.forward = _identity
    try:
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


def _identity(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


def trial_input(net: Net) -> Tensor:
    """(PROBE, ...) without a draw from the run's random numbers."""
    device = next(net.parameters()).device
    generator = torch.Generator().manual_seed(0)
    return torch.randn(PROBE, *net.input_shape, generator=generator).to(device)


def _is_still(module: nn.Module) -> bool:
    """Nothing in it is trained, and all of it is in eval mode."""
    trained = any(parameter.requires_grad for parameter in module.parameters())
    return not trained and not any(inner.training for inner in module.modules())


def _is_compiled(module: nn.Module) -> bool:
    """What torch.compile has traced knows no modules that are passed over."""
    return getattr(module, "_compiled_call_impl", None) is not None


def _modules(parents: Iterable[nn.Module]) -> Iterator[nn.Module]:
    return (module for parent in parents for module in parent.modules())


def _by_domain(module: nn.Module) -> bool:
    """Whether the target has statistics of its own: what comes out depends on the domain."""
    if not isinstance(module, BatchNorm) or not module.per_domain:
        return False
    return bool(module.get_buffer("target_num_batches_tracked") > 0)


def _alike(a: Tensor, b: Tensor) -> bool:
    """An image's activation does not depend on the others of its batch (but for rounding)."""
    return torch.allclose(a.float(), b.float(), rtol=1e-2, atol=1e-3 * float(a.abs().max()))


def _inner(stage: str) -> str:
    return stage.partition(".")[2]
