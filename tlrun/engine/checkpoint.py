"""Checkpoints that survive a crash at any moment.

A file is written to a temporary name, flushed to the disk and moved into place; its sha256 stands
in a JSON sidecar. `last.pt` is kept together with the one before it (`previous.pt`): a new one
replaces the older only when it is whole, and a damaged one is passed over with a warning.

`candidates/<n>.pt` holds the weights at evaluation n (from 0), while a selection rule may still
choose it. Which ones these are follows from the rows of the evaluations alone.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tlrun.errors import RunError
from tlrun.files.archives import load_tensors
from tlrun.files.atomic import write_atomic
from tlrun.run_folder.json_file import Damaged
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)


def save(path: Path, state: dict[str, Any], about: dict[str, Any]) -> None:
    """Write `path` and its sidecar (`about` + sha256). Raises RunError when the disk refuses."""
    data, digest = _encode(state)
    with _saving(path):
        write_atomic(path, data)
        RunDir.write_json(path.with_suffix(".json"), {**about, "sha256": digest})


def save_last(folder: Path, state: dict[str, Any], about: dict[str, Any]) -> None:
    """Write `last.pt`; the one it replaces becomes `previous.pt`.

    At every moment in between, one of the two files matches one of the two sidecars (see
    `load_last`), whatever the order in which a crash leaves them.
    """
    data, digest = _encode(state)
    new, new_sidecar = folder / "new.pt", folder / "new.json"
    last, sidecar = folder / "last.pt", folder / "last.json"
    with _saving(last):
        write_atomic(new, data)
        RunDir.write_json(new_sidecar, {**about, "sha256": digest})
        if sidecar.exists():
            os.replace(sidecar, folder / "previous.json")
        if last.exists():
            os.replace(last, folder / "previous.pt")
        os.replace(new_sidecar, sidecar)
        os.replace(new, last)


def candidate_path(folder: Path, number: int) -> Path:
    """Of evaluation number `number`; folder: that of all checkpoints."""
    return folder / "candidates" / f"{number:04d}.pt"


def save_candidate(folder: Path, number: int, state: dict[str, Any], about: dict[str, Any]) -> None:
    path = candidate_path(folder, number)
    with _saving(path):
        path.parent.mkdir(exist_ok=True)
    save(path, state, about)


def keep_candidates(folder: Path, numbers: set[int]) -> None:
    """Delete every candidate but these, and their folder if none is left."""
    candidates = folder / "candidates"
    kept = {candidate_path(folder, number).stem for number in numbers}
    for file in candidates.glob("*"):
        if file.name.partition(".")[0] not in kept:
            file.unlink()
    if candidates.is_dir() and not any(candidates.iterdir()):
        candidates.rmdir()


def link_as(source: Path, path: Path, about: dict[str, Any]) -> bool:
    """Make `path` the checkpoint `source` under another name (a link: no copy) with a sidecar.

    False if `source` is not there or was never wholly written.
    """
    digest = _digest_in(source.with_suffix(".json"))
    if digest is None or not source.is_file():
        return False
    new = path.with_suffix(".new")
    with _saving(path):
        path.parent.mkdir(exist_ok=True)
        new.unlink(missing_ok=True)
        try:
            os.link(source, new)
        except OSError:  # a disk without links
            shutil.copyfile(source, new)
        os.replace(new, path)
        new.unlink(missing_ok=True)  # a rename does nothing where both are one file already
        RunDir.write_json(path.with_suffix(".json"), {**about, "sha256": digest})
    return True


def step_and_phase(path: Path) -> tuple[Any, Any]:
    """(step, phase) of a checkpoint by its sidecar; (None, None) without one."""
    try:
        about = RunDir.read_json(path.with_suffix(".json"))
        return about.get("step"), about.get("phase")
    except Damaged:
        return None, None


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU, without pickle's code execution.

    Raises RunError when it is missing, or damaged (its sha256 differs from the sidecar's).
    """
    if not path.is_file():
        raise RunError(f"no checkpoint {path}; the run has not saved one yet")
    data = path.read_bytes()
    expected = _digest_in(path.with_suffix(".json"))
    if expected and hashlib.sha256(data).hexdigest() != expected:
        raise RunError(f"{path} is damaged (its sha256 differs from {path.stem}.json)")
    return _decode(data, path)


def load_last(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint, or None when there is none at all.

    Raises RunError when files are there but none is whole.
    """
    digests = {_digest_in(folder / name) for name in ("last.json", "previous.json", "new.json")}
    files = [path for name in ("last.pt", "previous.pt") if (path := folder / name).is_file()]
    for path in files:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() in digests:
            return _decode(data, path)
        log.warning("%s is damaged; going on from the checkpoint before it", path)
    if files:
        raise RunError(f"every checkpoint in {folder} is damaged; start the run anew")
    return None


def rng_state() -> dict[str, Any]:
    """All random states of this process, as types that `weights_only=True` reads back."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    state: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [str(kind), [int(k) for k in keys], int(position), int(has_gauss), float(cached)],
        "python": [version, list(internal), gauss],
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _encode(state: dict[str, Any]) -> tuple[bytes, str]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    return data, hashlib.sha256(data).hexdigest()


def _decode(data: bytes, path: Path) -> dict[str, Any]:
    try:
        state: Any = load_tensors(data)
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if not isinstance(state, dict):
        raise RunError(f"{path} is damaged: it holds no state of a run")
    return state


def _digest_in(sidecar: Path) -> str | None:
    try:
        return str(RunDir.read_json(sidecar)["sha256"])
    except (Damaged, KeyError):
        return None


@contextmanager
def _saving(path: Path) -> Iterator[None]:
    """A full or unwritable disk, said in one sentence."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot save {path}: {error.strerror or error}; the checkpoint before it is intact: "
            f"free some space, then `tlrun resume {path.parent.parent}`"
        ) from error
