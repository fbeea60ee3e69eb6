"""`tlrun export RUN_DIR --to torch_export|onnx`: the model with its preprocessing as one file.

The file takes raw images uint8 (B, C, H, W) of the data's size (or float32 features (B, D)), any B,
and gives logits (B, K), or boxes (B, 4) for a task that says where. It carries the names of the
classes and how an image is brought to size (`metadata`). What it computes is compared with the
model before it is called done.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlrun.errors import ConfigError, RunError, did_you_mean
from tlrun.fp32 import in_fp32
from tlrun.inference.metadata import EXTRA_FILE, metadata
from tlrun.inference.predict import Model, load
from tlrun.run_folder.run_dir import RunDir

FORMATS = {"torch_export": "model.pt2", "onnx": "model.onnx"}
TOLERANCE = 1e-4  # relative to the largest logit: other kernels add in another order


@in_fp32  # under autocast the file would hold its casts
def main(
    run_dir: str | Path,
    to: str = "torch_export",
    output: str | Path | None = None,
    checkpoint: str = "selected",
    task: str | None = None,
) -> Path:
    """Write the exported model (default: in the run folder) and return its path.

    Raises ConfigError for an unknown format or a missing extra, RunError if the outputs differ.
    """
    if to not in FORMATS:
        raise ConfigError(f"unknown format '{to}': {did_you_mean(to, FORMATS)}")
    model = load(run_dir, checkpoint, task)
    path = Path(output) if output else RunDir.open(run_dir).path / FORMATS[to]
    if not path.parent.is_dir() or path.is_dir():
        raise ConfigError(f"--output {path}: give a file in a folder that exists")
    difference = _onnx(model, path) if to == "onnx" else _torch_export(model, path)
    print(f"{path}: largest difference to the model {difference:.1e}")
    return path


def example(model: Model, count: int) -> Tensor:
    """Random inputs of the kind that the model takes: uint8 images or float32 features."""
    shape = (count, *model.preprocess.raw_shape)
    draws = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return (draws * 256).to(torch.uint8) if model.preprocess.images else draws


def _torch_export(model: Model, path: Path) -> float:
    program = _program(model)
    with warnings.catch_warnings():
        # of weights that are views of a larger storage; `_compare` shows what was saved
        warnings.filterwarnings("ignore", message="No complete tensor found")
        torch.export.save(program, path, extra_files={EXTRA_FILE: json.dumps(metadata(model))})
    return _compare(model, path, lambda x: torch.export.load(path).module()(x))


def _onnx(model: Model, path: Path) -> float:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ConfigError(
            f"{error}: install it with pip install onnx onnxscript onnxruntime"
        ) from error
    exported: Any = torch.onnx.export(
        _program(model), dynamo=True, input_names=["images"], output_names=["logits"], verbose=False
    )
    said = metadata(model)
    exported.model.metadata_props.update({key: json.dumps(value) for key, value in said.items()})
    exported.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return _compare(
        model, path, lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])
    )


def _program(model: Model) -> torch.export.ExportedProgram:
    batch = {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad():
        return torch.export.export(
            model, (example(model, 2),), dynamic_shapes=(batch,), strict=False
        )


def _compare(model: Model, path: Path, run: Any) -> float:
    """Largest difference on a batch of another size than the exported one."""
    x = example(model, 3)
    with torch.no_grad():
        expected, exported = model(x), run(x)
    difference = float((expected - exported).abs().max())
    if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise RunError(
            f"{path} computes other logits than the model (they differ by {difference:.2g})"
        )
    return difference
