"""Ready features of any origin (CLIP or DINO embeddings, SURF histograms): .npz, .mat or .csv.

    .npz, .mat   an array (n, D) and labels (n,), under common names or those given by the keys
                 `features` and `labels`
    .csv         a header line; the column `label` (or the one of the key `labels`), the others
                 numbers

Columns with names (a csv's header, an array `columns`) are matched by them between the files of a
run; without names their number must agree. Rows are ordered by their content, never as in the file,
which is often sorted by class. Their `path` tells where they stood: `clip.npz[17]`. A file without
labels may be a target. `rows` normalises each example, `zscore` each column of the whole file: the
usual preparation of the Office-Caltech-10 SURF files (Gong, Shi, Sha, Grauman, CVPR 2012).
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tlrun.config.ranges import BelowOne, Pixels
from tlrun.data.examples.download import data_roots, missing
from tlrun.data.examples.feature_file import FeatureFile, read_features, refuse_values
from tlrun.data.examples.image_set import ImageSet
from tlrun.data.examples.match import check_shapes
from tlrun.data.examples.splits import Card, Splits, class_order, cut
from tlrun.data.pipeline.hashing import permutation
from tlrun.errors import ConfigError, DataError, did_you_mean

SURF_CLASSES = (
    "backpack", "bike", "calculator", "headphones", "keyboard",
    "laptop", "monitor", "mouse", "mug", "projector",
)  # fmt: skip
log = logging.getLogger(__name__)

Scale = tuple[np.ndarray, np.ndarray]
SURF = {"amazon": "amazon", "caltech": "Caltech10", "dslr": "dslr", "webcam": "webcam"}


def features(
    *,
    seed: int = 0,
    size: Pixels | None = None,
    download: bool = True,
    name: str = "features",
    path: str | None = None,
    test: str | None = None,
    features: str | None = None,
    labels: str | None = None,
    rows: str | None = None,
    zscore: bool = False,
    transductive: bool = False,
    stratify: bool = False,
    val_fraction: BelowOne = 0.1,
    test_fraction: BelowOne = 0.2,
) -> Splits:
    """Features of one domain. path: the file; test: that of the test set, else seeded fractions are
    cut.

    features, labels: names of the arrays (or of the label column). rows: null | l1 | l2.
    transductive: train and test on all examples. stratify: cut so that the shares of the classes
    are kept. Raises ConfigError or DataError that names the
    file.
    """
    if not path:
        raise ConfigError(
            f"where are the features? Set data.{name}.path=FILE (.npz, .mat or .csv)."
        )
    card = Card(name, "your own features", "yours", "", path)
    found = _read(path, features, labels, card)
    train, scale = _examples(name, found, rows, zscore)
    content = contents(found)
    if test:
        other = _read(test, features, labels, card).ordered(found.columns, f"'{path}'")
        tested, _ = _examples(name, other, rows, zscore, scale=scale)
        train = _apart(train, content, contents(other), card)
        parts = Splits(train, None, tested, card, stratify=stratify and train.labels is not None)
        check_shapes(train, tested)
    elif train.labels is None and not transductive:
        parts = Splits(train, None, train, card)
    else:
        parts = cut(
            train,
            card,
            seed,
            val=val_fraction,
            test=test_fraction,
            transductive=transductive,
            key=f"data.{name}",
            content=content,
            stratify=stratify,
        )
    repeated = len(content) - len(set(content.values()))
    if repeated and parts.train is not parts.test:
        _note(card, f"'{path}' repeats {repeated:,} of its rows; equal ones stay in one split")
    return replace(parts, feature_names=found.columns, content=content)


def contents(found: FeatureFile) -> dict[str, str]:
    """Path of each row -> hash of its numbers."""
    return dict(zip(paths_of(found), row_hashes(found.by_name()), strict=True))


def _apart(
    train: ImageSet, content: dict[str, str], tested: dict[str, str], card: Card
) -> ImageSet:
    """The training rows without those of the test file. DataError if none is left."""
    there = {digest: path for path, digest in tested.items()}
    paths = train.paths or []
    kept = [i for i, path in enumerate(paths) if content[path] not in there]
    if len(kept) == len(paths):
        return train
    twice = next(path for path in paths if content[path] in there)
    if not kept:
        raise DataError(
            f"every row of '{card.root}' is one of the test file too; give others, or set "
            f"data.{card.name}.transductive=true without a test file."
        )
    _note(
        card,
        f"{len(paths) - len(kept):,} of {len(paths):,} rows of '{card.root}' are rows of the test "
        f"file too and left out: '{twice}' is '{there[content[twice]]}'",
    )
    return train.subset(torch.tensor(kept))


def _note(card: Card, note: str) -> None:
    """What is said about a file stands in the card, too."""
    log.warning("%s", note)
    card.notes.append(note)


def _read(path: str, features: str | None, labels: str | None, card: Card) -> FeatureFile:
    """The file; what is left out of it is said, and noted in the card."""
    found = read_features(Path(path).expanduser(), features, labels)
    for note in found.notes:
        _note(card, note)
    return found


def office_caltech_surf(
    *,
    seed: int = 0,
    size: Pixels | None = None,
    download: bool = True,
    domain: str = "amazon",
    rows: str | None = "l1",
    zscore: bool = True,
    transductive: bool = False,
) -> Splits:
    """One domain of Office-Caltech-10 as 800-bin SURF histograms; domain: see `SURF`."""
    if domain not in SURF:
        raise ConfigError(f"Office-Caltech has no domain '{domain}': {did_you_mean(domain, SURF)}")
    place = f"office_caltech_10_surf/{SURF[domain]}_SURF_L10.mat"
    path = next((root / place for root in data_roots() if (root / place).exists()), None)
    if path is None:
        raise missing("Office-Caltech-10 SURF", (place,))
    found = read_features(path, "fts", "labels")
    examples, _ = _examples(domain, found, rows, zscore, SURF_CLASSES)
    citation = "Gong, Shi, Sha, Grauman, CVPR 2012; Saenko et al., ECCV 2010; Griffin et al. 2007"
    return cut(
        examples,
        Card(domain, citation, "none stated; research use", "", str(path.parent)),
        seed,
        transductive=transductive,
    )


def _examples(
    name: str,
    found: FeatureFile,
    rows: str | None,
    zscore: bool,
    classes: tuple[str, ...] | None = None,
    scale: Scale | None = None,
) -> tuple[ImageSet, Scale]:
    """The set of one file, and its columns' mean and std (scale: those of another file to use).

    classes: names for the labels of the file, in their order.
    """
    order = content_order(found.by_name())
    names = paths_of(found)
    paths = [names[row] for row in order]
    x = normalize_rows(found.x[order], rows)
    scale = scale or (x.mean(0), x.std(0))
    if zscore:
        if x.shape[1:] != scale[0].shape:
            raise DataError(
                f"'{found.path}' has {x.shape[1]} features per row, its training file "
                f"{len(scale[0])}."
            )
        x = (x - scale[0]) / np.where(
            scale[1] > 1e-12, scale[1], np.inf
        )  # constant columns become 0
    large = np.empty_like(x, dtype=bool)
    large[order] = ~(np.abs(x) <= np.finfo(np.float32).max)
    refuse_values(found, large, "numbers beyond 3.4e38, the range of float32; scale them")
    data = torch.from_numpy(x.astype(np.float32))
    if found.labels is None:
        return ImageSet(name, data, paths=paths), scale
    known = class_order(found.labels.tolist())
    place = {label: i for i, label in enumerate(known)}
    label = torch.tensor([place[found.labels[i]] for i in order], dtype=torch.int64)
    if classes is None or len(known) != len(classes):
        classes = tuple(known)
    return ImageSet(name, data, label, classes, paths), scale


def paths_of(found: FeatureFile) -> list[str]:
    """Where each row stands: file[row], counted from 0."""
    return [f"{found.path.name}[{row}]" for row in range(len(found.x))]


def row_hashes(x: np.ndarray) -> list[str]:
    """A sha256 of the numbers of each row of x (n, D)."""
    return [hashlib.sha256((row.astype("<f8") + 0.0).tobytes()).hexdigest() for row in x]  # -0 is 0


def content_order(x: np.ndarray) -> np.ndarray:
    """(n,) positions of the rows of x (n, D) in the order of a hash of their numbers.

    The type of the numbers plays no part. Rows of the same numbers are shuffled among themselves:
    of a file sorted by class, the zero rows would otherwise be too.
    """
    content = row_hashes(x)
    tie = permutation(len(x), "equal rows").tolist()
    order = sorted(range(len(x)), key=lambda i: (content[i], tie[i]))
    return np.array(order, dtype=np.int64)


def normalize_rows(x: np.ndarray, rows: str | None) -> np.ndarray:
    """(n, D) -> float64 (n, D): each row to unit l1 or l2 norm (rows of zeros stay)."""
    if rows not in (None, "l1", "l2"):
        raise ConfigError(f"rows={rows}: choose null, l1 or l2.")
    x = x.astype(np.float64)
    if rows is None:
        return x
    norm = np.linalg.norm(x, ord=1 if rows == "l1" else 2, axis=1, keepdims=True)
    return x / np.where(norm > 0, norm, 1)
