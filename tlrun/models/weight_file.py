"""Weights of one's own: `backbone.weights=FILE`, into any backbone.

A file is a state dict, or holds one under some key (`state_dict`, `model`, `teacher`), with any
prefix before its names (`module.`, `model.`, `backbone.encoder.`). The key and the prefix are those
under which most tensors of the net are found by name and shape, so no list of them is kept. The
head has no place in a backbone and is left out; `classifier_in` gives it to who asks.
"""

from __future__ import annotations

import argparse
import logging
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tlrun.errors import ConfigError, DataError
from tlrun.messages import plural
from tlrun.models.published import Adapt, State

log = logging.getLogger(__name__)

READ = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
HALF = 0.5  # a file of which less fits is another net's
SHOWN = 3  # names in the line before "and 9 others"
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of torch's magic number
DEPTH = 3  # how deep a state dict may lie in a checkpoint
# of two that fit alike: averaged weights before those that were averaged, as timm and DINO do it
PREFERRED = ("ema", "teacher")
HEAD = re.compile(r"(?:^|\.)((?:fc|heads?|classifier|last_linear|logits|projector)\w*)\.")


@dataclass
class Match:
    """How a state dict fits a net. where: its key in the file; state: by the names of the net."""

    where: str
    prefix: str
    state: State
    fits: list[str]
    reshaped: list[str]
    missing: list[str]
    left: list[str]

    @property
    def share(self) -> float:
        """The smaller share of the net's tensors and of the file's that fit, the head aside."""
        body = [name for name in self.left if not HEAD.search(name)]
        own = len(self.fits) + len(self.reshaped) + len(self.missing)
        theirs = len(self.fits) + len(self.reshaped) + len(body)
        return len(self.fits) / max(own, theirs, 1)


def load_weight_file(module: nn.Module, file: str, name: str, adapt: Adapt | None = None) -> None:
    """Copy what fits of `file` into the backbone `name`, and say in one line what does not; the
    names of its tensors that stay new are kept as its `not_in_file`.

    adapt: from published names to those of the net, where they differ. Raises DataError for a file
    that cannot be read or whose numbers are no weights, ConfigError for one of which less than half
    fits.
    """
    best = _best_match(module, file, adapt)
    _check_channels(module, best, file)
    if best.share < HALF:
        raise ConfigError(_refusal(best, file, name))
    _check_numbers(module, best, file)
    module.load_state_dict({key: best.state[key] for key in best.fits}, strict=False)
    module.not_in_file = (*best.missing, *best.reshaped)  # type: ignore[assignment]
    news = best.missing or best.reshaped
    log.log(logging.WARNING if news else logging.INFO, "%s", _line(best, file, name))


def classifier_in(
    module: nn.Module, file: str, features: int, adapt: Adapt | None = None
) -> nn.Linear | None:
    """The head that `load_weight_file` leaves out; None where it is not one linear layer from so
    many features."""
    best = _best_match(module, file, adapt)
    head = {key: best.state[key] for key in best.left if HEAD.search(key)}
    names = sorted(key.rpartition(".")[2] for key in head)
    if names not in (["weight"], ["bias", "weight"]):
        return None
    state = {key.rpartition(".")[2]: value for key, value in head.items()}
    weight = state["weight"]
    if weight.ndim != 2 or weight.shape[1] != features:
        return None
    linear = nn.Linear(features, weight.shape[0], bias="bias" in state)
    linear.load_state_dict(state)
    return linear


def _best_match(module: nn.Module, file: str, adapt: Adapt | None) -> Match:
    """Where in the file, and under which prefix, most is found. Raises DataError."""
    matches = [
        match
        for where, state in state_dicts(read_weight_file(Path(file)))
        for match in _matches(module, state, where, adapt)
    ]
    if not matches:
        raise DataError(f"{file} holds no tensors by name: give a state dict")
    return max(matches, key=lambda m: (m.share, any(word in m.where for word in PREFERRED)))


def read_weight_file(path: Path) -> Mapping[str, Any]:
    """What lies in the file, tensors on the CPU, read without running code of it. DataError."""
    check_weight_file(path)
    suffix = path.suffix.lower()
    if suffix not in READ:
        raise DataError(
            f"backbone.weights={path}: files that end in {', '.join(READ)} are read; save the "
            "net's state dict as one, torch.save(net.state_dict(), 'weights.pth')"
        )
    _check_kind(path)
    try:
        if suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # timm's and DINO's `args`
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what lies in anybody's file may fail in any way
        raise DataError(_unreadable(path, error)) from error
    if isinstance(found, Mapping) and {"parts", "method"} <= found.keys():
        raise ConfigError(of_a_run(path))
    if not isinstance(found, Mapping):
        kind = type(found).__name__
        raise DataError(f"{path} holds a {kind}, not tensors by name: give a state dict")
    return found


def check_weight_file(path: Path) -> None:
    """What can be told before the file is read. Raises DataError or ConfigError."""
    if not path.is_file():
        raise DataError(f"backbone.weights={path}: there is no such file")
    path = path.absolute()
    if path.parent.name == "checkpoints" and (path.parents[1] / "config.yaml").is_file():
        raise ConfigError(of_a_run(path))
    if path.name == "model.safetensors" and (path.parent / "label_space.json").is_file():
        raise ConfigError(
            f"{path} is the model of a run of tlrun: give the run's folder instead, "
            f"init={path.parent}, which brings its head and normalisation too"
        )


def of_a_run(path: Path) -> str:
    folder = path.absolute().parents[1]
    return f"{path} is a checkpoint of tlrun: give the run's folder instead, init={folder}"


def state_dicts(
    found: Mapping[str, Any], where: str = "", depth: int = 0
) -> Iterator[tuple[str, State]]:
    """(key, tensors by name) of every mapping of tensors in a checkpoint."""
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    if tensors:
        yield where, tensors
    if depth < DEPTH:
        for key, value in found.items():
            if isinstance(value, Mapping):
                yield from state_dicts(value, f"{where}.{key}".strip("."), depth + 1)


def _matches(module: nn.Module, state: State, where: str, adapt: Adapt | None) -> Iterator[Match]:
    """How `state` fits under each prefix that may be meant."""
    own = module.state_dict()
    for prefix in _prefixes(state, own):
        theirs = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        renamed = adapt(dict(theirs), module) if adapt else theirs
        fits = [k for k, v in renamed.items() if k in own and own[k].shape == v.shape]
        reshaped = [k for k, v in renamed.items() if k in own and own[k].shape != v.shape]
        left = [k for k in renamed if k not in own]
        missing = [k for k in own if k not in renamed and not k.endswith("num_batches_tracked")]
        yield Match(where, prefix, renamed, fits, reshaped, missing, left)


def _prefixes(state: State, own: Mapping[str, Tensor]) -> list[str]:
    """None, those under which most names of the net are found, and those that at least half of all
    names begin with: published names need not be those of the net."""
    votes: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for i in range(1, len(parts)):
            if ".".join(parts[i:]) in own:
                votes[".".join(parts[:i]) + "."] += 1
    begins: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        begins.update(".".join(parts[:i]) + "." for i in range(1, len(parts)))
    shared = [prefix for prefix, names in begins.items() if 2 * names >= len(state)]
    return list(dict.fromkeys(["", *(prefix for prefix, _ in votes.most_common(4)), *shared]))


def _line(match: Match, file: str, name: str) -> str:
    """What fits, what is new and what is left over."""
    total = len(match.fits) + len(match.reshaped) + len(match.missing)
    under = " ".join(f"'{word.strip('.')}'" for word in (match.where, match.prefix) if word)
    at = f" (at {under})" if under else ""
    said = [f"{name}: {len(match.fits)} of {total} tensors come from {file}{at}"]
    heads = sorted({found[1] for key in match.left if (found := HEAD.search(key))})
    left = [key for key in match.left if not HEAD.search(key)]
    said += [f"without its head ({', '.join(heads)})"] if heads else []
    said += [f"new: {_few(match.missing)}"] if match.missing else []
    said += [f"of another shape there, so new: {_few(match.reshaped)}"] if match.reshaped else []
    said += [f"left over: {_few(left)}"] if left else []
    return "; ".join(said)


def _refusal(match: Match, file: str, name: str) -> str:
    total = len(match.fits) + len(match.reshaped) + len(match.missing)
    why = [f"it lacks {_few(match.missing)}"] if match.missing else []
    why += [f"of another shape: {_few(match.reshaped)}"] if match.reshaped else []
    why += [f"it has {_few(match.left)}"] if match.left else []
    return (
        f"{file} is not of backbone '{name}': {len(match.fits)} of {total} tensors fit "
        f"({'; '.join(why)}): choose the backbone that it was saved from"
    )


def _check_channels(module: nn.Module, match: Match, file: str) -> None:
    """A first convolution for colour in a net for grey images, or the other way round."""
    own = module.state_dict()
    for key in match.reshaped[:1]:
        theirs, ours = (tuple(s[key].shape) for s in (match.state, own))
        other_colour = {theirs[1:2], ours[1:2]} == {(1,), (3,)}
        if len(theirs) == 4 and other_colour and theirs[2:] == ours[2:]:
            raise ConfigError(
                f"{file} takes {theirs[1]} channels and the data have {ours[1]}: "
                f"set data.channels={theirs[1]}"
            )


def _check_numbers(module: nn.Module, match: Match, file: str) -> None:
    """Raises DataError where whole numbers, or what is no number, stand for weights."""
    own = module.state_dict()
    for key in match.fits:
        value = match.state[key]
        if not own[key].is_floating_point():
            continue
        if not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise DataError(
                f"{file} holds whole numbers ({kind}) for '{key}', as a quantised net does: give "
                "the weights from before they were quantised"
            )
        if not value.float().isfinite().all():
            raise DataError(
                f"{file} holds NaN or infinite numbers in '{key}': take a checkpoint from before "
                "its training diverged"
            )


def _few(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {plural(more, 'other')}" if more > 0 else "")


def _unreadable(path: Path, error: Exception) -> str:
    said = " ".join(str(error).split())
    if "Unsupported" in said:  # torch's word for what is no tensor
        return (
            f"{path} holds more than tensors, and running what lies in a file is not safe: where "
            "you trust it, save its state dict alone, "
            "torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pth')"
        )
    return f"{path} cannot be read ({type(error).__name__}: {said[:100]}): it may be cut short"


def _check_kind(path: Path) -> None:
    """Raises DataError unless the first bytes are those of safetensors, or of what torch.save
    writes or wrote: a zip, a pickle that begins with torch's own number, a tar."""
    with path.open("rb") as file:
        start = file.read(40)
    if start.startswith(b"version https://git-lfs"):
        raise DataError(f"{path} is a pointer of Git LFS, not the file itself: git lfs pull")
    if path.suffix.lower() == ".safetensors":
        right = start[8:9] == b"{"
    else:
        right = start.startswith((b"PK", LEGACY)) or tarfile.is_tarfile(path)
    if not right:
        raise DataError(
            f"{path} is no file of weights: give a .safetensors file, or what "
            "torch.save(net.state_dict(), 'weights.pth') writes"
        )
