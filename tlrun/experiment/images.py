"""images.json: what the page of a run shows of its images, made once the run is trained.

They are drawn here, where sets and net are in memory, so that `tlrun report RUN_DIR` works where
the data are not. At most about 200 thumbnails of 96 pixels: 1 MB (evaluate/images/thumbnails.py).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch

from tlrun.engine.precision import autocast
from tlrun.evaluate.images.sections import Group, ImageRow, Section, captioned
from tlrun.evaluate.images.thumbnails import inputs, thumbnails
from tlrun.experiment.baselines import is_baseline
from tlrun.experiment.session import Session
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)

STREAMS = 3  # shown as they are augmented
EACH = 6  # images of each


def write_images(session: Session, into: RunDir, outputs: Any) -> None:
    """With the loaded weights. outputs: of `Session.test`.

    Nothing for features, and for a run that is there for comparison only. Trained is trained: what
    goes wrong here is a warning.
    """
    if not session.data.preprocess.images or is_baseline(session.run_dir):
        return
    try:
        with torch.no_grad(), autocast(session.precision, session.device):
            sections = session.evaluator.images(session.net, outputs)
        sections[1:1] = augmented(session)
        if sections:
            into.write_json(into.images, [section.to_json() for section in sections])
    except Exception as error:
        log.warning(
            "the page goes without images, they could not be drawn: %s: %s",
            type(error).__name__,
            error,
        )


def augmented(session: Session) -> list[Section]:
    """The first training images of each stream, plain and as they were trained on; [] without
    augmentation."""
    on_cpu = {**session.cfg["trainer"], "workers": 0}
    trainer = replace(
        session, device=torch.device("cpu"), cfg={**session.cfg, "trainer": on_cpu}
    ).trainer()
    data = session.data
    rows: list[ImageRow] = []
    for phase in session.phases:
        for name, stream in trainer.open_streams(phase).items():
            shown = {row.title.partition(":")[0] for row in rows}
            changed = stream.augment is not None or any(stream.views.values())
            if not changed or name in shown or len(shown) == STREAMS:
                continue
            with torch.no_grad():
                batch = stream.batch(0)
            index = batch.index[:EACH]
            kinds = {
                "in evaluation": inputs(data.stream_set(name), index, data.preprocess),
                "in training": batch.x[:EACH],
                **{view: x[:EACH] for view, x in batch.views.items() if view == "strong"},
            }
            for kind, x in kinds.items():
                alt = f"an image of the stream {name}, {kind}"
                images = captioned(thumbnails(x, data.preprocess), alt)
                rows.append(ImageRow(f"{name}: {kind}", [Group("", images)]))
    if not rows:
        return []
    text = (
        f"The first {EACH} images of the first training batch of each stream, as in evaluation and "
        "as training changes them (data.augment); what lies outside the range of colours is cut."
    )
    return [Section("augmented", "Augmentation", text, rows)]
