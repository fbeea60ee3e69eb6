"""Images of several tasks: of each class of a class task, and with their boxes of a box task."""

from __future__ import annotations

from torch import Tensor

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.data.problems.label_space import Task
from tlrun.evaluate.images.by_class import Shown, seen_as, side_by_side
from tlrun.evaluate.images.sections import Group, ImageRow, Section, captioned
from tlrun.evaluate.images.thumbnails import PREDICTED, TRUE, boxed, inputs
from tlrun.evaluate.metrics import iou

BOXES = 12


def of_task(task: Task, examples: ImageSet, preprocess: Preprocess, seed: int) -> Section | None:
    """What a task is trained on: images of its classes, or with their boxes."""
    if task.kind == "box":
        return drawn_boxes(task, examples, preprocess, seed)
    truth = task.truth(examples.labels, examples.columns)
    shown = Shown(task.domain or task.name, "training images", examples, truth, task.classes)
    return side_by_side([shown], preprocess, seed, task.name)


def drawn_boxes(
    task: Task,
    examples: ImageSet,
    preprocess: Preprocess,
    seed: int,
    predicted: Tensor | None = None,
) -> Section | None:
    """Images with their boxes; None where no box is known. predicted: (n, 4), of test images."""
    truth = task.truth(examples.labels, examples.columns)
    known = (~truth.isnan().any(1)).nonzero().flatten()
    index = known[permutation(len(known), "images", seed, task.name)[:BOXES]]
    if not len(index):
        return None
    drawn, texts = [(truth[index], TRUE)], [""] * len(index)
    said = "Training images with the box as given (green)."
    if predicted is not None:
        drawn.append((predicted[index], PREDICTED))
        texts = [f"IoU {float(v):.2f}" for v in iou(predicted[index], truth[index])]
        said = "Test images with the true box (green) and the predicted one (orange)."
    data = boxed(inputs(examples, index, preprocess), preprocess, drawn)
    row = ImageRow("", [Group("", captioned(data, f"{task.name}: an image with its box", texts))])
    text = f"{said} {len(index):,} of {len(known):,}, drawn by the seed. {seen_as(preprocess)}"
    return Section(f"boxes_{task.name}", f"Boxes: {task.name}", text, [row])
