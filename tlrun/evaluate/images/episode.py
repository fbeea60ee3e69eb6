"""One episode: what is learned from (support), and what each query is taken for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.data.problems.label_space import Shape
from tlrun.evaluate.images.by_class import seen_as
from tlrun.evaluate.images.sections import Group, ImageRow, Section, captioned, of_all
from tlrun.evaluate.images.thumbnails import inputs, thumbnails

WAYS = 10
EACH = 3  # support and query images of a class


def episode(
    examples: ImageSet,
    drawn: Tensor,
    shape: Shape,
    guesses: Tensor | None,
    preprocess: Preprocess,
    what: str,
) -> Section:
    """drawn: (way, shot + query) indices into `examples`. guesses: (way, query) places of classes
    in the episode, None where the method gives no scores. what: whose classes these are.
    """
    names = [_class_of(examples, int(row[0])) for row in drawn]
    shots, queries = min(shape.shot, EACH), min(shape.query, EACH)
    shown = min(shape.way, WAYS)
    chosen = drawn[:shown]
    index = [*chosen[:, :shots].flatten(), *chosen[:, shape.shot : shape.shot + queries].flatten()]
    data = iter(thumbnails(inputs(examples, drawn.new_tensor(index), preprocess), preprocess))
    support = [[next(data) for _ in range(shots)] for _ in range(shown)]
    query = [[next(data) for _ in range(queries)] for _ in range(shown)]
    rows = []
    for place, (given, asked) in enumerate(zip(support, query, strict=True)):
        said = [""] * queries if guesses is None else _said(names, guesses[place, :queries], place)
        groups = [
            Group("support", captioned(given, f"support of {names[place]}")),
            Group("query", captioned(asked, f"a query of {names[place]}", said)),
        ]
        rows.append(ImageRow(names[place], groups))
    right = ""
    if guesses is not None:
        hits = int((guesses.cpu() == _places(guesses)).sum())
        right = f" {hits} of its {guesses.numel()} queries are taken for their class."
    text = (
        f"The first {shape.way}-way {shape.shot}-shot test episode of the {what} classes: "
        f"{of_all(shown, shape.way, 'classes')}, {shots} of {shape.shot} support and {queries} of "
        f"{shape.query} query images of each.{right} {seen_as(preprocess)}"
    )
    return Section("episode", "An episode", text, rows)


def _places(guesses: Tensor) -> Tensor:
    return guesses.new_tensor(range(len(guesses))).cpu()[:, None].expand_as(guesses)


def _said(names: Sequence[str], guesses: Tensor, place: int) -> list[str]:
    return ["right" if g == place else f"taken for {names[g]}" for g in guesses.tolist()]


def _class_of(examples: ImageSet, index: int) -> str:
    assert examples.labels is not None
    assert examples.classes is not None
    return examples.classes[int(examples.labels[index])]
