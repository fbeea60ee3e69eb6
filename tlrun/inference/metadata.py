"""What an exported file says of itself, so that it can be used without the run and without tlrun.

Each value is written as JSON: under its own key in the `metadata_props` of an ONNX file, and all of
them in the extra file `EXTRA_FILE` of a torch_export file. docs/run_folder.md lists the keys.
"""

from __future__ import annotations

from typing import Any

from tlrun.data.examples.decode import DRAFT
from tlrun.inference.predict import Model

EXTRA_FILE = "tlrun.json"


def metadata(model: Model) -> dict[str, Any]:
    """Plain values by key: the outputs, and how an image file becomes an input."""
    preprocess = model.preprocess
    said: dict[str, Any] = {
        "classes": [] if model.boxes else list(model.classes),
        "output": "boxes" if model.boxes else "logits",
        "input": "images" if preprocess.images else "features",
        "normalize": preprocess.mode,
        **({"task": model.task} if model.task else {}),
        **({"columns": list(model.feature_names)} if model.feature_names else {}),
    }
    if preprocess.mode not in ("none", "instance"):  # the file does it; said for the record
        said |= {k: getattr(preprocess, k).flatten().tolist() for k in ("mean", "std")}
    if preprocess.images:
        channels, size, _ = preprocess.raw_shape  # the file itself cuts the centre
        said |= {
            "size": size,
            "channels": channels,
            "fit": preprocess.fit,
            "interpolation": preprocess.interpolation,
            "jpeg_draft": DRAFT,
            "grey": {kind: list(values) for kind, values in preprocess.grey.items()},
        }
    return said
