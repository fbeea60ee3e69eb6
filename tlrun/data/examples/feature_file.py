"""A file of ready features, .npz, .mat or .csv, as numbers, class names and names of columns.

What would be misread is refused by name: a column twice, two columns that could hold the classes, a
few missing labels, labels that are measurements. A column that only counts the rows is left out and
named: in a file sorted by class it tells the class.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlrun.data.examples.csv_table import is_number, read_csv_table
from tlrun.errors import DataError, did_you_mean
from tlrun.files.archives import described, load_mat, open_zip
from tlrun.messages import plural

log = logging.getLogger(__name__)

FEATURE_KEYS = ("features", "fts", "x", "X", "data", "embeddings")
LABEL_KEYS = ("labels", "label", "y", "Y", "target", "targets", "class", "classes")
COLUMN_KEYS = ("columns", "feature_names", "column_names")
COORDINATE = "y"  # a label where nothing else is one, else a feature beside x
MISSING = ("", "nan", "<na>")
UNNAMED = re.compile(r"|unnamed: ?\d+", re.IGNORECASE)  # as pandas writes and reads an index
INDEX_NAMES = ("index", "id", "idx", "row")
COUNTED = 10  # so many rows in steps of exactly one are no coincidence
SPARSE_LIMIT = 8e9  # bytes of a sparse matrix written out


@dataclass(frozen=True)
class FeatureFile:
    """x: (n, D) numbers. labels: (n,) class names, or None. columns: D names, or None.

    notes: what was left out, a sentence each.
    """

    path: Path
    x: np.ndarray
    labels: np.ndarray | None
    columns: tuple[str, ...] | None
    notes: tuple[str, ...] = ()

    def by_name(self) -> np.ndarray:
        """x with named columns in alphabetical order: what a row holds, whatever the file's."""
        return self.x if self.columns is None else self.x[:, np.argsort(self.columns)]

    def ordered(self, columns: Sequence[str] | None, name: str) -> FeatureFile:
        """With its columns in the order of those of another file, called `name`.

        Without names of its own it takes theirs, if it has as many columns.
        """
        if self.columns is None and columns is not None and len(columns) == self.x.shape[1]:
            _tell_positions(f"'{self.path}'", name)
            return replace(self, columns=tuple(columns))
        order = column_order(self.columns, columns, f"'{self.path}'", name)
        if order is None:
            return self
        return replace(self, x=self.x[:, order], columns=tuple(columns or ()))


def column_order(
    columns: Sequence[str] | None, wanted: Sequence[str] | None, name: str, other: str
) -> list[int] | None:
    """Where in `own` each of the columns `wanted` stands; None = take them as they are.

    Sets without names are matched by the number of columns alone, which is not checked here; where
    one of the two has names, a warning says so. DataError that names what only one of them has.
    """
    if columns is None and wanted is not None:
        _tell_positions(name, other)
    if columns is not None and wanted is None:
        _tell_positions(other, name)
    if columns is None or wanted is None or list(columns) == list(wanted):
        return None
    missing = [c for c in wanted if c not in columns]
    extra = [c for c in columns if c not in wanted]
    if missing or extra:
        raise DataError(
            f"{other} and {name} must have the same columns "
            f"({only_in({other: missing, name: extra})}); rename, add or remove them."
        )
    return [list(columns).index(c) for c in wanted]


def _tell_positions(unnamed: str, named: str) -> None:
    log.warning(
        "the columns of %s have no names: they are taken for those of %s in the order there",
        unnamed,
        named,
    )


def listed(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return f"{', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"


def only_in(names: Mapping[str, Sequence[str]]) -> str:
    """What is in one place alone, by place: "only in a.csv: x, y; only in b.csv: z"."""
    return "; ".join(f"only in {place}: {listed(found)}" for place, found in names.items() if found)


def read_features(
    path: Path, feature_key: str | None = None, label_key: str | None = None
) -> FeatureFile:
    """By the file's extension. No pickle is run. Raises DataError that names the file."""
    if not path.is_file():
        raise DataError(f"no feature file at '{path}'.")
    with described(path):
        if path.suffix.lower() in (".csv", ".tsv"):
            file = _read_csv(path, label_key)
        else:
            file = _read_arrays(path, feature_key, label_key)
    file = _without_index(file)
    doubled = sorted({c for c in file.columns or () if (file.columns or ()).count(c) > 1})
    if doubled:
        raise DataError(
            f"'{path}': the column '{doubled[0]}' stands twice; rename or remove one of them."
        )
    _check_finite(file)
    return file


# ---- formats ------------------------------------------------------------------------------------


def _read_csv(path: Path, label_key: str | None) -> FeatureFile:
    table = read_csv_table(path)
    at = _label_column(table.columns, label_key, path)
    empty = [i for i, name in enumerate(table.columns) if not name and not any(table.column(i))]
    kept = [i for i in range(len(table.columns)) if i != at and i not in empty]
    columns = tuple(table.columns[i] for i in kept)
    hint = "; remove the column" + (
        "" if at is not None else ", or, if it holds the classes, name the column of classes label"
    )
    if at is None:
        _refuse_misspelt(columns, path)
    labels = None if at is None else class_names(np.array(table.column(at)), path)
    return FeatureFile(path, table.numbers(kept, hint), labels, columns)


def _label_column(columns: Sequence[str], wanted: str | None, path: Path) -> int | None:
    """The position of the column of classes, whatever its case; None if there is none."""
    if wanted is not None:
        file = _places(columns, [wanted])
        if not file:
            raise DataError(
                f"'{path}' has no column {wanted}: {did_you_mean(wanted, columns, limit=10)}."
            )
    else:
        file = _places(columns, LABEL_KEYS)
        file = [i for i in file if columns[i].casefold() != COORDINATE] or file
    if len(file) > 1:
        names = " and ".join(f"'{columns[i]}'" for i in file[:2])
        raise DataError(
            f"'{path}': the columns {names} could both hold the classes; remove one of them."
        )
    return file[0] if file else None


def _places(names: Sequence[str], wanted: Iterable[str]) -> list[int]:
    """The positions of names that are wanted; case and blanks around them play no part."""
    words = {word.strip().casefold() for word in wanted}
    return [i for i, name in enumerate(names) if name.strip().casefold() in words]


def _refuse_misspelt(columns: Sequence[str], path: Path) -> None:
    for name in columns:
        near = difflib.get_close_matches(name.casefold(), ("label", "labels", "target"), 1, 0.8)
        if near:
            raise DataError(
                f"'{path}': is '{name}' the column of classes? Name it {near[0]}, or give its name "
                "as data.source.labels (data.target.labels), or call it something else."
            )


def _read_arrays(path: Path, feature_key: str | None, label_key: str | None) -> FeatureFile:
    with _Arrays(path) as arrays:
        x = arrays.take(feature_key, FEATURE_KEYS)
        y = arrays.take(label_key, LABEL_KEYS, required=label_key is not None)
        columns = arrays.take(None, COLUMN_KEYS, required=False)
    if x is None or x.ndim != 2 or x.dtype.kind not in "fiub":
        raise DataError(
            f"'{path}': the features must be numbers (n, D), found "
            f"{None if x is None else f'{x.shape} of {x.dtype}'}."
        )
    if y is not None and y.size != len(x):
        why = "make the counts agree"
        if y.size == x.shape[1]:
            why = "are the features stored by column? Transpose them"
        elif len(y) == len(x):
            why = "give each row one class, not a row of numbers"
        raise DataError(
            f"'{path}': {plural(y.size, 'label')} for {plural(len(x), 'row')} of features; {why}."
        )
    names = None if columns is None else tuple(str(c).strip() for c in _texts(columns, path))
    if names is not None and len(names) != x.shape[1]:
        raise DataError(f"'{path}': {len(names)} names of columns for {x.shape[1]} columns.")
    labels = None if y is None else class_names(_texts(y, path), path)
    return FeatureFile(path, x, labels, names)


class _Arrays:
    """The arrays of an .npz or .mat, each read only when it is asked for. Pickles never are."""

    found: Mapping[str, Any]

    def __init__(self, path: Path) -> None:
        self.path, self.archive = path, None
        kind = path.suffix.lower()
        if kind == ".npz":
            with open_zip(path):  # of plausible size
                self.archive = np.load(path, allow_pickle=False)
            self.names = list(self.archive.files)
            if {"indptr", "indices", "format", "shape"} <= set(self.names):
                raise DataError(
                    f"'{path}' is a sparse matrix without labels (scipy.sparse.save_npz); write "
                    "np.savez(FILE, features=matrix.toarray(), labels=labels)."
                )
        elif kind == ".mat":
            try:
                self.found = load_mat(path)
            except DataError as error:
                if isinstance(error.__cause__, NotImplementedError):  # HDF5
                    raise DataError(f"'{path}' is of MATLAB 7.3; save it with -v7.") from error
                raise
            self.names = list(self.found)
        else:
            raise DataError(f"'{path}': features are read from .npz, .mat and .csv.")

    def __enter__(self) -> _Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        if self.archive is not None:
            self.archive.close()

    def take(
        self, key: str | None, names: Sequence[str], required: bool = True
    ) -> np.ndarray | None:
        """The array under `key`, else under the first common name that is there."""
        wanted = [key] if key else names
        name = next((n for n in wanted if n in self.names), None)
        if name is None:  # in another case
            places = [i for n in wanted for i in _places(self.names, [n])]
            name = self.names[places[0]] if places else None
        if name is not None:
            return self._dense(name)
        if not required:
            return None
        raise DataError(
            f"'{self.path}' has no array {key or ' or '.join(names)}; it has "
            f"{', '.join(sorted(self.names)) or 'none'}."
        )

    def _dense(self, name: str) -> np.ndarray:
        from scipy.sparse import issparse

        if self.archive is not None:
            try:
                array: np.ndarray = self.archive[name]
            except ValueError as error:
                if "pickle" not in str(error):
                    raise
                raise DataError(
                    f"'{self.path}': the array {name} holds Python objects, which are never "
                    "unpickled; write it as numbers, or names as np.array(names, dtype=str)."
                ) from error
            return array
        array_in_file = self.found[name]
        if not issparse(array_in_file):
            return np.asarray(array_in_file)
        if (size := 8.0 * np.prod(array_in_file.shape, dtype=float)) > SPARSE_LIMIT:
            raise DataError(
                f"'{self.path}': the sparse array {name} would take {size / 1e9:.0f} GB written "
                "out; leave columns out or reduce them (truncated SVD)."
            )
        dense: np.ndarray = array_in_file.toarray()
        return dense


# ---- labels -------------------------------------------------------------------------------------


def _texts(array: np.ndarray, path: Path) -> np.ndarray:
    """(n,) numbers or str: MATLAB's cells of text and its padded rows of characters, and bytes."""
    flat = array.ravel()
    if flat.dtype.kind == "S":
        return np.char.decode(flat, "utf-8")
    if flat.dtype.kind in "fiubU":
        return flat
    cells = [np.asarray(cell).ravel() for cell in flat] if flat.dtype.kind == "O" else []
    if not cells or any(len(cell) > 1 or cell.dtype.kind not in "UfiubS" for cell in cells):
        raise DataError(f"'{path}': labels and column names are numbers or text; write them so.")
    return np.array([str(cell[0]) if len(cell) else "" for cell in cells])


def class_names(labels: np.ndarray, path: Path) -> np.ndarray | None:
    """(n,) names of classes; None if not one label is known. DataError for what is no class.

    Whole numbers are named as such, however they are spelled: 1.0 is the class 1.
    """
    if labels.dtype.kind in "f":
        names = np.array(["nan" if np.isnan(v) else repr(float(v)) for v in labels])
    else:
        names = np.array([str(v).strip() for v in labels])
    missing = np.array([name.casefold() in MISSING for name in names])
    if missing.all():
        return None
    if missing.any():
        where = ", ".join(str(i + 1) for i in np.flatnonzero(missing)[:5])
        raise DataError(
            f"'{path}': {missing.sum()} of {len(names)} examples have no label (example {where}"
            f"{', ...' if missing.sum() > 5 else ''}); label all or none of them."
        )
    if not all(is_number(name) for name in names):
        return names
    values = [float(name) for name in names]
    odd = next((n for n, v in zip(names, values, strict=True) if not float(v).is_integer()), None)
    if odd is not None:
        raise DataError(
            f"'{path}': the label {odd} is no class but a measurement; classes are whole numbers "
            "or names."
        )
    plain = all(re.fullmatch(r"[+-]?\d+", name) for name in names)
    return names if plain else np.array([str(int(value)) for value in values])


# ---- features -----------------------------------------------------------------------------------


def _without_index(file: FeatureFile) -> FeatureFile:
    """Without the columns that say where a row stands, and a note of each."""
    kept, notes = [], []
    for j in range(file.x.shape[1]):
        values = file.x[:, j].astype(np.float64)
        name = None if file.columns is None else file.columns[j]
        whole = bool(np.isfinite(values).all() and (values == np.round(values)).all())
        unnamed = name is not None and UNNAMED.fullmatch(name) is not None
        counts = whole and len(values) >= COUNTED and bool((np.diff(values) == 1).all())
        called = name is not None and name.casefold() in INDEX_NAMES
        if unnamed and not whole:
            raise DataError(
                f"'{file.path}': feature column {j + 1} has no name; name it in the first line or "
                "remove it."
            )
        if not (counts or (whole and (unnamed or called))):
            kept.append(j)
            continue
        shown = f"'{name}'" if name else "without a name" if unnamed else f"{j + 1}"
        notes.append(
            f"'{file.path}': the column {shown} is left out: it counts or names the rows, which "
            "in a sorted file tells the class"
        )
    if not notes:
        return file
    if not kept:
        raise DataError(f"'{file.path}': beside an index of its rows it has no column of features.")
    columns = None if file.columns is None else tuple(file.columns[j] for j in kept)
    return replace(file, x=file.x[:, kept], columns=columns, notes=(*file.notes, *notes))


def _check_finite(file: FeatureFile) -> None:
    refuse_values(file, ~np.isfinite(file.x), "NaN or infinite features; clean it")


def refuse_values(file: FeatureFile, bad: np.ndarray, what: str) -> None:
    """DataError if any of `bad` (n, D): how many, in which columns, in which example first."""
    if not bad.any():
        return
    by_column = bad.sum(0)
    worst = np.flatnonzero(by_column)
    told = ", ".join(
        f"{file.columns[j] if file.columns else j + 1} ({by_column[j]})" for j in worst[:5]
    )
    more = ", ..." if len(worst) > 5 else ""
    raise DataError(
        f"'{file.path}' holds {what}: {bad.sum()} of {bad.size} numbers, in column {told}{more}, "
        f"first in example {np.flatnonzero(bad.any(1))[0] + 1}."
    )
