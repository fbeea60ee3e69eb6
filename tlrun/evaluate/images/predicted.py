"""Images beside what the net takes them for: its most confident mistakes, and its surest guesses
where nobody knows the classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.evaluate.images.sections import Group, ImageRow, Section, captioned, of_all, spread
from tlrun.evaluate.images.thumbnails import inputs, thumbnails

MISTAKES = 12
CLASSES = 10  # predicted ones; of more, so many evenly spaced
EACH = 3  # surest and least sure ones of a class


def predictions(
    examples: ImageSet,
    scores: Tensor,
    labels: Tensor | None,
    classes: Sequence[str],
    preprocess: Preprocess,
    what: str = "target test images",
) -> Section | None:
    """scores: (n, K) of all examples. labels: (n,), below 0 unknown; None = nobody knows them.

    None where nothing is wrong, or nothing was predicted.
    """
    if labels is None or not bool((labels >= 0).any()):
        return surest(examples, scores, classes, preprocess, what)
    return mistakes(examples, scores, labels, classes, preprocess, what)


def mistakes(
    examples: ImageSet,
    scores: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    preprocess: Preprocess,
    what: str,
) -> Section | None:
    confidence, guess = scores.softmax(1).max(1)
    known = labels >= 0
    wrong = ((guess != labels) & known).nonzero().flatten()
    if not len(wrong):
        return None
    index = wrong[confidence[wrong].argsort(descending=True, stable=True)][:MISTAKES]
    names, texts = [], []
    for i in index.tolist():
        true, taken = classes[int(labels[i])], classes[int(guess[i])]
        texts.append(f"{true}, taken for {taken}, {_percent(confidence[i])}")
        names.append(f"{_name(examples, i)}: {texts[-1]}")
    data = thumbnails(inputs(examples, index, preprocess), preprocess)
    text = (
        f"{len(wrong):,} of {int(known.sum()):,} {what} are taken for another class; the net was "
        f"surest of {'these ' + str(len(index)) if len(index) < len(wrong) else 'the first'}. "
        "A label may be wrong here as well as the net."
    )
    row = ImageRow("", [Group("", captioned(data, names, texts))])
    return Section("mistakes", "Most confident errors", text, [row])


def surest(
    examples: ImageSet,
    scores: Tensor,
    classes: Sequence[str],
    preprocess: Preprocess,
    what: str,
) -> Section | None:
    """A row for each predicted class: what the net is surest of, and least sure of."""
    if not len(scores):
        return None
    confidence, guess = scores.softmax(1).max(1)
    counts = torch.bincount(guess, minlength=len(classes))
    predicted = counts.nonzero().flatten().tolist()
    chosen = spread(predicted, CLASSES)
    picked = {k: _ends(confidence, (guess == k).nonzero().flatten()) for k in chosen}
    index = torch.cat([end for ends in picked.values() for end in ends])
    data = iter(thumbnails(inputs(examples, index, preprocess), preprocess))
    rows = []
    for k, ends in picked.items():
        groups = []
        for title, end in zip(("surest", "least sure"), ends, strict=True):
            texts = [_percent(confidence[i]) for i in end]
            alts = [f"{_name(examples, int(i))}: taken for {classes[k]}" for i in end]
            groups.append(Group(title, captioned([next(data) for _ in end], alts, texts)))
        rows.append(ImageRow(f"{classes[k]}: {int(counts[k]):,}", groups))
    text = (
        f"What the net makes of {len(scores):,} {what} whose classes nobody has given: of each "
        f"predicted class the count, the images it is surest of and those it is least sure of. "
        f"{of_all(len(chosen), len(predicted), 'predicted classes')} (of {len(classes):,})."
    )
    return Section("surest", "Surest and least sure", text, rows)


def _ends(confidence: Tensor, of: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of the surest and of the least sure; no image is among both."""
    order = of[confidence[of].argsort(descending=True, stable=True)]
    top = order[:EACH]
    return top, order[len(top) :].flip(0)[:EACH]


def _percent(confidence: Tensor) -> str:
    share = 100 * float(confidence)
    return f"{share:.1f} %" if share < 99.95 else "100 %"


def _name(examples: ImageSet, index: int) -> str:
    return examples.paths[index] if examples.paths else f"image {index}"
