"""`auto` in `data.size`, `data.normalize`, `data.interpolation`: images as the weights know them.

The weights are the backbone's published ones or those of another run (`init`). Without any, images
are 64 pixels wide, brought to that by bilinear interpolation and normalised by `half`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from tlrun.config.build import locate, plain
from tlrun.config.schema import INITS
from tlrun.config.weight_files import is_weight_file
from tlrun.data.examples.fit import BILINEAR, INTERPOLATIONS
from tlrun.data.pipeline.preprocess import name_of
from tlrun.data.problems.pair import AUTO_NORMALIZE, AUTO_SIZE
from tlrun.experiment.initial_weights import pretrained_weights
from tlrun.models.published import trained_on
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """What weights know of images. who: "the run X was", for messages. mean, std: of `standard`.
    interpolation: bilinear where nobody says it."""

    who: str
    size: int
    normalize: str
    interpolation: str = BILINEAR
    mean: list[float] | None = None
    std: list[float] | None = None


def awaits_weights(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of `data` that are `auto` until `follow_weights` gives them a value."""
    if "size" not in data or "normalize" not in data:  # ready features
        return ()
    return tuple(key for key in ("size", "normalize", "interpolation") if data.get(key) == "auto")


def follow_weights(cfg: DictConfig, init: str) -> None:
    """Replace `auto` in those keys of `data`; one line says what the weights decided.

    init: as the method resolves it. A `data.normalize` that contradicts the weights is told.
    Raises ConfigError for weights that do not exist.
    """
    data = cfg.data
    if "size" not in data or "normalize" not in data:  # ready features
        return
    known, awaiting = _known(cfg, init), awaits_weights(data)
    if known is None:
        usual = {"size": AUTO_SIZE, "normalize": AUTO_NORMALIZE, "interpolation": BILINEAR}
        data.update({key: usual[key] for key in awaiting})
        return
    chosen = []
    if "size" in awaiting:
        data.size = known.size
        chosen.append(f"data.size={known.size}")
    if "normalize" in awaiting:
        _normalize_as(data, known)
        chosen.append(f"data.normalize={data.normalize}")
    elif _of_given(data) != known.normalize:
        log.warning(
            "data.normalize=%s, but %s trained with %s, which data.normalize=auto would take",
            data.normalize,
            known.who,
            known.normalize,
        )
    if "interpolation" in awaiting:
        data.interpolation = known.interpolation
        chosen.append(f"data.interpolation={data.interpolation}")
    if chosen:
        log.info("%s, as %s trained", " ".join(chosen), known.who)


def _known(cfg: DictConfig, init: str) -> Known | None:
    """What the first weights know of images; None for random ones, and where nobody says it."""
    if init not in INITS:
        return _of_run(RunDir.open(init))
    weights = pretrained_weights(init, cfg.backbone.get("weights"))
    images = None if weights is None else trained_on(plain(cfg.backbone), str(weights))
    if images is None:
        return None
    known_as = "published weights" if is_weight_file(weights) else f"weights {weights}"
    who = f"the {known_as} of {cfg.backbone.name} were"
    name = name_of(images.mean, images.std)
    said = images.interpolation
    how = said if said in INTERPOLATIONS else BILINEAR
    if name is not None:
        return Known(who, images.size, name, how)
    return Known(who, images.size, "standard", how, list(images.mean), list(images.std))


def _of_run(run: RunDir) -> Known | None:
    if not run.label_space.is_file():
        return None
    spec: Mapping[str, Any] = run.read_label_space()["preprocess"]
    if len(spec["shape"]) != 3:
        return None
    size, mode = int(spec["shape"][1]), str(spec["normalize"])
    how = str(spec.get("interpolation", BILINEAR))
    return Known(f"the run {run.path} was", size, mode, how, spec.get("mean"), spec.get("std"))


def _normalize_as(data: DictConfig, known: Known) -> None:
    data.normalize = known.normalize
    if known.mean is None or known.std is None:
        return
    target = data.get("_target_")
    taken = inspect.signature(locate(str(target))).parameters if target else {}
    others = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
    if target is None or "mean" in taken or others:
        data.mean, data.std = known.mean, known.std
    else:
        log.warning(
            "data=%s takes no mean and std: data.normalize=standard measures its own, and %s "
            "trained with mean %s and std %s",
            data.get("name"),
            known.who,
            known.mean,
            known.std,
        )


def _of_given(data: DictConfig) -> str:
    """The name of what `data.normalize` means, where mean and std may say the same by numbers."""
    if data.normalize == "standard" and data.get("mean") and data.get("std"):
        return name_of(data.mean, data.std) or "standard"
    return str(data.normalize)
