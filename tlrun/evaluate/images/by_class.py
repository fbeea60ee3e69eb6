"""Images of each class from every domain side by side, as the net is given them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tlrun.data.examples.image_set import ImageSet
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.data.problems.pair import Data
from tlrun.evaluate.images.sections import Group, ImageRow, Section, captioned, of_all, spread
from tlrun.evaluate.images.thumbnails import inputs, thumbnails

CLASSES = 10  # of more, so many evenly spaced
IN_ROW = 6  # images of a class, over all domains
DOMAINS = 6
WITHOUT = 12  # images of a domain whose classes are not known


@dataclass
class Shown:
    """The images that stand for a domain. labels: (n,) int64, below 0 unknown; None = locked."""

    domain: str
    title: str
    examples: ImageSet
    labels: Tensor | None
    classes: Sequence[str]

    @classmethod
    def of(cls, domain: str, examples: ImageSet, what: str) -> Shown:
        """what: which of the domain's sets it is, for the title."""
        title = f"{domain}, {what}"
        known = examples.labels is not None and examples.classes is not None
        return cls(
            domain, title, examples, examples.labels if known else None, examples.classes or ()
        )

    def names(self) -> list[str]:
        """Classes with images, in their order."""
        if self.labels is None:
            return []
        counts = torch.bincount(self.labels[self.labels >= 0].cpu(), minlength=len(self.classes))
        return [name for name, count in zip(self.classes, counts.tolist(), strict=True) if count]


def shown_domains(data: Data, target_test: bool) -> list[Shown]:
    """The training images of every source, and images of the target.

    Of the target its test images, if the run evaluates them, else those that the method may see
    with the labels that it may see.
    """
    sources = data.sources if len(data.sources) > 1 else ("source",)
    found = []
    alone = data.domains["target"].train if "source" not in data.domains else None
    if target_test and alone is not None and alone.labels is not None and len(alone):
        found.append(Shown.of("target", alone, "training images"))  # what is learned from
    for domain in (*sources, "target"):
        if domain not in data.domains:
            continue
        sets = data.domains[domain]
        candidates: list[tuple[ImageSet | None, str]] = [(sets.train, "training images")]
        if domain == "target":
            candidates.append((data.unlabelled, "training images"))
            if target_test:
                candidates.insert(0, (sets.test, "test images"))
        else:
            candidates.append((sets.test, "test images"))
        for examples, what in candidates:
            if examples is not None and len(examples):
                found.append(Shown.of(domain, examples, what))
                break
    return found[: DOMAINS - 1] + found[-1:] if len(found) > DOMAINS else found


def by_class(data: Data, seed: int, target_test: bool) -> Section | None:
    """None if the data have no images to show."""
    return side_by_side(shown_domains(data, target_test), data.preprocess, seed)


def side_by_side(
    domains: Sequence[Shown], preprocess: Preprocess, seed: int, task: str = ""
) -> Section | None:
    """A row for each class, a group in it for each domain. task: its name, if there are several."""
    if not domains:
        return None
    names = list(dict.fromkeys(name for domain in domains for name in domain.names()))
    labelled = [domain for domain in domains if domain.labels is not None]
    each = max(1, round(IN_ROW / max(1, len(labelled))))
    chosen = spread(names, CLASSES)
    chosen_of = {d.title: draw(d, chosen, each, seed) for d in domains}
    given = {d.title: inputs(d.examples, chosen_of[d.title][1], preprocess) for d in domains}
    images = {title: thumbnails(x, preprocess) for title, x in given.items()}
    rows = []
    for name in chosen:
        groups = []
        for domain in labelled:
            places = [k for k, of in enumerate(chosen_of[domain.title][0]) if of == name]
            data = [images[domain.title][k] for k in places]
            groups.append(Group(domain.title, captioned(data, f"{domain.domain}: {name}")))
        rows.append(ImageRow(name, groups))
    for domain in domains:
        if domain.labels is None:
            alt = f"{domain.domain}, class not known here"
            group = Group(domain.title, captioned(images[domain.title], alt))
            rows.append(ImageRow("classes not shown", [group]))
    shown = f"{of_all(len(chosen), len(names), 'classes')}. " if names else ""
    shown = shown[:1].upper() + shown[1:]
    return Section(
        name=f"by_class_{task}" if task else "by_class",
        title=f"What the net is given: {task}" if task else "What the net is given",
        text=f"{shown}{seen_as(preprocess)}{statistics(given, preprocess)}",
        rows=rows,
    )


def draw(domain: Shown, names: Sequence[str], each: int, seed: int) -> tuple[list[str], Tensor]:
    """(class of each, index (m,)): `each` images of each class, or WITHOUT of unknown class."""
    order = permutation(len(domain.examples), "images", seed, domain.domain)
    if domain.labels is None:
        return [""] * len(order[:WITHOUT]), order[:WITHOUT]
    labels, of, index = domain.labels.cpu()[order], [], []
    for name in names:
        if name in domain.classes:
            found = order[labels == domain.classes.index(name)][:each]
            of += [name] * len(found)
            index.append(found)
    return of, torch.cat(index) if index else order[:0]


def seen_as(preprocess: Preprocess) -> str:
    """How images stand on the page."""
    shape = "×".join(map(str, preprocess.output_shape))
    back = {
        "none": "in [0, 1] as they are",
        "instance": "each with mean 0 and standard deviation 1, which is shown from −2.5 to 2.5",
    }.get(preprocess.mode, f"normalised ({preprocess.mode}) and brought back to colours here")
    return f"Each image is what the net gets in evaluation: {shape}, {back}."


def statistics(given: Mapping[str, Tensor], preprocess: Preprocess) -> str:
    """Mean and standard deviation of inputs: a domain that is far from the others was read or
    normalised otherwise."""
    if preprocess.mode == "instance":  # all alike
        return ""
    said = [
        f"{title}: {float(x.mean()):.2f} and {float(x.std()):.2f}".replace("-", "−")
        for title, x in given.items()
        if len(x)
    ]
    return f" Mean and standard deviation of the numbers it gets: {'; '.join(said)}."
