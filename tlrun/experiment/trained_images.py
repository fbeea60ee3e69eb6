"""No figure of images that a run was trained on: asked wherever its weights meet other data.

Another seed, another fraction or other files may cut the data anew, and what the run learned from
then stands in the test. The images themselves are compared, by their content, so no list of keys
that cut has to be kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from typing import Any

import torch

from tlrun.config.build import plain
from tlrun.config.saved import load_config
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.pixels import FilePixels
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError, DataError
from tlrun.experiment.assemble import load_data
from tlrun.methods.build import build_method
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)

CUTS = ("data", "seed", "target_labels", "target_val_labels", "target_images", "method")
ROWS = 4096  # read at a time


def refuse_trained_images(
    run_dir: RunDir, cfg: dict[str, Any], data: Data, overrides: Sequence[str]
) -> None:
    """ConfigError if a test set of `data` has images that the run was trained on.

    data: of `cfg`, the run's configuration with `overrides` on top. Images that the run's own test
    has too (copies in a published set, a transductive target) stay: its own figures hold them.
    """
    saved: dict[str, Any] = plain(load_config(run_dir.config))
    if all(saved.get(key) == cfg.get(key) for key in CUTS):
        return
    try:
        before = _silently_loaded(saved)
    except (ConfigError, DataError) as error:
        log.warning(
            "the data that the run was trained on cannot be read here, so nobody looks whether "
            "these test images are among them: %s",
            error,
        )
        return
    transductive = _is_transductive(cfg["data"])
    trained: set[str] = set()
    for name, domain in before.domains.items():
        unlabelled = domain.train is None or domain.train.labels is None
        if not (transductive and name == "target" and unlabelled):
            trained.update(*_marks(domain.train))
    if not transductive:
        trained.update(*_marks(before.unlabelled))
    for domain in before.domains.values():
        trained.difference_update(*_marks(domain.test))
    for name, domain in data.domains.items():
        tested = _marks(domain.test)
        count = sum(not trained.isdisjoint(marks) for marks in tested)
        if count:
            raise ConfigError(
                f"{count:,} of the {len(tested):,} images of {name}_test are images that the run "
                f"was trained on, so figures of them would be no test ({' '.join(overrides)}): "
                "leave the seed and what cuts the data as the run has them, or name images that "
                "it has not seen"
            )


def _silently_loaded(saved: dict[str, Any]) -> Data:
    """The data as the run had them, without the warnings that it gave then."""
    logging.disable(logging.WARNING)
    try:
        return load_data(saved, build_method(saved), trained=True, space=None)
    finally:
        logging.disable(logging.NOTSET)


def _is_transductive(data: dict[str, Any]) -> bool:
    """Whether the configuration says that a target is tested on its training images."""
    target = data.get("target")
    return bool(data.get("transductive")) or (
        isinstance(target, dict) and bool(target.get("transductive"))
    )


def _marks(examples: ImageSet | None) -> list[tuple[str, ...]]:
    """What tells each example from others: the hash of its file or pixels, and where it lies."""
    if examples is None:
        return []
    rows = torch.arange(len(examples.pixels)) if examples.rows is None else examples.rows
    pixels = examples.pixels
    if isinstance(pixels, FilePixels):
        content = [pixels.content[row] for row in rows.tolist()]
    else:
        content = [
            hashlib.sha256(x.tobytes()).hexdigest()
            for block in rows.split(ROWS)
            for x in pixels.read(block).cpu().numpy()
        ]
    if examples.paths is None:
        return [(mark,) for mark in content]
    places = [os.path.realpath(path) if os.path.isfile(path) else "" for path in examples.paths]
    return [
        (mark, place) if place else (mark,) for mark, place in zip(content, places, strict=True)
    ]
