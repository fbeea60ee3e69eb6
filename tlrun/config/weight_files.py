"""Whether a value of `backbone.weights` or `init` names a file of weights. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeGuard

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".npz", ".h5", ".onnx")


def is_weight_file(value: Any) -> TypeGuard[str]:
    """A path to a file, by its ending or since it lies there; no name of published weights has a
    folder or such an ending."""
    if not isinstance(value, str):
        return False
    path = Path(value)
    return path.suffix.lower() in SUFFIXES or (len(path.parts) > 1 and path.is_file())
