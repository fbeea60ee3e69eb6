"""Ready features of any origin (CLIP or DINO embeddings, SURF histograms): .npz, .mat or .csv.

    .npz, .mat   an array (n, D) and labels (n,), under common names or those given by the keys
                 `features` and `labels`
    .csv         a header line; the column `label` (or the last, if it is not numeric), the others
                 numbers

Rows are ordered by their content, never as in the file, which is often sorted by class. Their
`path` tells where they stood: `clip.npz[17]`. A file without labels may be a target. `rows`
normalises each example, `zscore` each column of the whole file: the usual preparation of the
Office-Caltech-10 SURF files (Gong, Shi, Sha, Grauman, CVPR 2012).
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tlrun.archives import load_mat, load_npz
from tlrun.data.download import data_roots, missing
from tlrun.data.hashing import permutation
from tlrun.data.image_set import ImageSet
from tlrun.data.splits import Card, Splits, cut
from tlrun.errors import ConfigError, DataError, did_you_mean
from tlrun.ranges import BelowOne, Pixels

FEATURE_KEYS = ("features", "fts", "x", "X", "data", "embeddings")
LABEL_KEYS = ("labels", "label", "y", "Y", "target", "targets")
SURF_CLASSES = (
    "backpack", "bike", "calculator", "headphones", "keyboard",
    "laptop", "monitor", "mouse", "mug", "projector",
)  # fmt: skip
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
    val_fraction: BelowOne = 0.1,
    test_fraction: BelowOne = 0.2,
) -> Splits:
    """Features of one domain. path: the file; test: that of the test set, else seeded fractions are
    cut.

    features, labels: names of the arrays (or of the label column). rows: null | l1 | l2.
    transductive: train and test on all examples. Raises ConfigError or DataError that names the
    file.
    """
    if not path:
        raise ConfigError(
            f"where are the features? Set data.{name}.path=FILE (.npz, .mat or .csv)."
        )
    card = Card(name, "your own features", "yours", "", path)
    train, scale = _examples(name, Path(path), features, labels, rows, zscore)
    if test:
        tested, _ = _examples(name, Path(test), features, labels, rows, zscore, scale=scale)
        return Splits(train, None, tested, card)
    if train.labels is None and not transductive:
        return Splits(train, None, train, card)
    return cut(train, card, seed, val=val_fraction, test=test_fraction, transductive=transductive)


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
    examples, _ = _examples(domain, path, "fts", "labels", rows, zscore, SURF_CLASSES)
    citation = "Gong, Shi, Sha, Grauman, CVPR 2012; Saenko et al., ECCV 2010; Griffin et al. 2007"
    return cut(
        examples,
        Card(domain, citation, "none stated; research use", "", str(path.parent)),
        seed,
        transductive=transductive,
    )


def _examples(
    name: str,
    path: Path,
    feature_key: str | None,
    label_key: str | None,
    rows: str | None,
    zscore: bool,
    classes: tuple[str, ...] | None = None,
    scale: Scale | None = None,
) -> tuple[ImageSet, Scale]:
    """The set of one file, and its columns' mean and std (scale: those of another file to use)."""
    x, y = read_features(path.expanduser(), feature_key, label_key)
    if not np.isfinite(x).all():
        raise DataError(f"'{path}' holds NaN or infinite features; clean it.")
    order = content_order(x)
    x, y = x[order], None if y is None else y[order]
    paths = [f"{path.name}[{row}]" for row in order]
    x = normalize_rows(x, rows)
    scale = scale or (x.mean(0), x.std(0))
    if zscore:
        if x.shape[1:] != scale[0].shape:
            raise DataError(
                f"'{path}' has {x.shape[1]} features per row, its training file {len(scale[0])}."
            )
        x = (x - scale[0]) / np.where(
            scale[1] > 1e-12, scale[1], np.inf
        )  # constant columns become 0
    data = torch.from_numpy(x.astype(np.float32))
    if y is None:
        return ImageSet(name, data, paths=paths), scale
    names, number = np.unique(y, return_inverse=True)
    if classes is None or len(names) != len(classes):
        plain = (
            names.astype(np.int64)
            if names.dtype.kind == "f" and (names == names.astype(int)).all()
            else names
        )
        classes = tuple(str(n) for n in plain)
    label = torch.from_numpy(number.reshape(-1).astype(np.int64))
    return ImageSet(name, data, label, classes, paths), scale


def content_order(x: np.ndarray) -> np.ndarray:
    """(n,) positions of the rows of x (n, D) in the order of a hash of their numbers.

    The type of the numbers plays no part. Rows of the same numbers are shuffled among themselves:
    of a file sorted by class, the zero rows would otherwise be too.
    """
    content = [hashlib.sha256((row.astype("<f8") + 0.0).tobytes()).digest() for row in x]  # -0 is 0
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


def read_features(
    path: Path, feature_key: str | None = None, label_key: str | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """(n, D) numbers and (n,) labels or None, by the file's extension. No pickle is run."""
    if not path.is_file():
        raise DataError(f"no feature file at '{path}'.")
    try:
        if path.suffix == ".csv":
            return _read_csv(path, label_key)
        arrays = _read_arrays(path)
    except DataError:
        raise
    except Exception as error:  # numpy and scipy raise a dozen kinds for damaged files
        raise DataError(
            f"cannot read the features '{path}' ({error}); write them as .npz, .mat or .csv."
        ) from error
    x = _pick(arrays, feature_key, FEATURE_KEYS, path)
    y = _pick(arrays, label_key, LABEL_KEYS, path, required=label_key is not None)
    if x is None or x.ndim != 2 or x.dtype.kind not in "fiub":
        raise DataError(
            f"'{path}': the features must be numbers (n, D), found "
            f"{None if x is None else x.shape}."
        )
    if y is not None and y.size != len(x):
        raise DataError(f"'{path}': {y.size} labels for {len(x)} rows of features.")
    return x, None if y is None else y.ravel()


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        return load_npz(path)
    if path.suffix == ".mat":
        return load_mat(path)
    raise DataError(f"'{path}': features are read from .npz, .mat and .csv.")


def _pick(
    arrays: dict[str, Any],
    key: str | None,
    names: tuple[str, ...],
    path: Path,
    required: bool = True,
) -> np.ndarray | None:
    """The array under `key`, else under the first common name that is there."""
    found: np.ndarray | None = next(
        (arrays[n] for n in ([key] if key else names) if n in arrays), None
    )
    if found is None and required:
        wanted = key or " or ".join(names)
        raise DataError(f"'{path}' has no array {wanted}; it has {', '.join(sorted(arrays))}.")
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_csv(path: Path, label_key: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    with open(path, newline="", encoding="utf-8-sig") as stream:
        header, *rows = [row for row in csv.reader(stream) if row] or [[]]
    if not rows:
        raise DataError(f"'{path}' has no rows; it needs a header line and a line per example.")
    if all(_is_number(cell) for cell in header):
        raise DataError(f"'{path}' has no header line: name the columns in its first line.")
    at = next(
        (header.index(n) for n in ([label_key] if label_key else LABEL_KEYS) if n in header), None
    )
    if at is None and label_key:
        raise DataError(f"'{path}' has no column {label_key}; it has {', '.join(header[:10])}.")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise DataError(
                f"'{path}', example {number}: {len(row)} cells under {len(header)} names."
            )
        bad = next((i for i, v in enumerate(row) if i != at and not _is_number(v)), None)
        if bad is not None:
            raise DataError(
                f"'{path}', example {number}: '{row[bad]}' in column {header[bad]} is no "
                f"number{'' if at is not None else '; name the column of classes label'}."
            )
    labels = None if at is None else np.array([row[at] for row in rows])
    values = [[v for i, v in enumerate(row) if i != at] for row in rows]
    return np.array(values, dtype=np.float64), labels
