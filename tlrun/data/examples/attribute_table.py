"""Tables of class attributes, S (classes x attributes), in the formats in which they are published.

    .csv          a header `class,legs,tail,...`, then a row per class; an empty cell is missing
    AwA folder    classes.txt, predicates.txt, predicate-matrix-{continuous,binary}.txt
    CUB folder    classes.txt, attributes.txt, class_attribute_labels_continuous.txt
    .mat          xlsa17's att_splits.mat: `att` (attributes x classes), `allclasses_names`
    .npz .txt     vectors of the classes' names or of texts about them (class_vectors.py)

-1 in AwA's and xlsa17's tables means missing (Lampert et al., TPAMI 2014). Missing values are NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlrun.data.examples.class_vectors import FILES, read_class_vectors
from tlrun.data.examples.csv_table import read_csv_table
from tlrun.data.examples.download import data_roots, missing
from tlrun.errors import ConfigError, DataError, did_you_mean
from tlrun.files.archives import load_mat

BUNDLED = Path(__file__).parent.parent / "sets"
PUBLISHED = {"awa2": "Animals_with_Attributes2", "cub": "CUB_200_2011_attributes"}
MATRICES = {
    "continuous": "predicate-matrix-continuous.txt",
    "binary": "predicate-matrix-binary.txt",
}


@dataclass(frozen=True)
class Table:
    """classes: (C,) names. attributes: (A,) names. values: (C, A) float64, NaN = missing."""

    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    values: np.ndarray

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.classes), len(self.attributes)):
            raise DataError(
                f"an attribute table of shape {self.values.shape} for {len(self.classes)} classes "
                f"and {len(self.attributes)} attributes; make the counts agree."
            )
        for what, names in (("class", self.classes), ("attribute", self.attributes)):
            doubled = next((n for n in names if names.count(n) > 1), None)
            if doubled is not None:
                raise DataError(f"the {what} '{doubled}' stands twice in the attribute table.")
        if np.isinf(self.values).any():
            raise DataError("the attribute table holds infinite values; clean it.")

    def rows_of(self, classes: Sequence[str]) -> np.ndarray:
        """(len(classes), A) in that order. DataError that names a class without a row."""
        for name in classes:
            if name not in self.classes:
                raise DataError(
                    f"the class '{name}' has no row in the attribute table: "
                    f"{did_you_mean(name, self.classes)}"
                )
        return self.values[[self.classes.index(name) for name in classes]]


def read_table(
    path: str | Path | None = None,
    bundled: str | None = None,
    matrix: str = "",
    classes: Sequence[str] = (),
) -> Table:
    """path: a file or folder as above. bundled: a table of the package (digit_strokes), or a folder
    below the data folders (awa2, cub). matrix: of an AwA folder, continuous (default) or binary.
    classes: those whose vectors are read from a file of vectors.

    Raises ConfigError or DataError that names the file.
    """
    if (path is None) == (bundled is None):
        raise ConfigError("which attributes? Give data.table.path=FILE or data.table.bundled=NAME.")
    if bundled is not None and bundled not in PUBLISHED:
        names = sorted([*PUBLISHED, *(p.stem for p in BUNDLED.glob("*.csv"))])
        if bundled not in names:
            raise ConfigError(f"no bundled table '{bundled}': {did_you_mean(bundled, names)}")
        return read_csv(BUNDLED / f"{bundled}.csv")
    if bundled is not None:
        place = find(PUBLISHED[bundled])
    else:
        place = find(str(path), "data.table.path")
    try:
        if place.is_dir():
            cub = (place / "attributes.txt").is_file()
            return _read_cub(place) if cub else _read_awa(place, matrix)
        if place.suffix.lower() in FILES:
            return _of_vectors(place, classes)
        return from_mat(load_mat(place)) if place.suffix == ".mat" else read_csv(place)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"cannot read the attribute table '{place}' ({error}).") from error


def find(path: str, key: str = "") -> Path:
    """The path itself, else the same below one of the data folders. DataError if there is none.

    key: of the configuration, where the file is the user's own and can be had nowhere else.
    """
    places = [Path(path).expanduser(), *(root / path for root in data_roots())]
    folder = next((candidate for candidate in places if candidate.exists()), None)
    if folder is None and key:
        raise DataError(f"{key}={path}: there is no such file or folder; name one.")
    if folder is None:
        raise missing("the attribute table", (path,))
    return folder


def read_csv(path: Path) -> Table:
    """A header `class,...` and a row per class; an empty cell is missing. DataError that names the
    line."""
    table = read_csv_table(path)
    if table.columns[0].casefold() != "class" or len(table.columns) < 2:
        raise DataError(f"'{path}': an attribute table begins with a line 'class,attribute,...'.")
    values = table.numbers(range(1, len(table.columns)), empty="nan")
    return Table(tuple(table.column(0)), table.columns[1:], values)


def _of_vectors(path: Path, classes: Sequence[str]) -> Table:
    values = read_class_vectors(path, classes)
    return Table(tuple(classes), tuple(f"v{k}" for k in range(1, values.shape[1] + 1)), values)


def _names(path: Path) -> tuple[str, ...]:
    """The second word of lines `1<tab>antelope`, or the only one."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(line.split(maxsplit=1)[-1].strip() for line in lines if line.strip())


def _read_awa(folder: Path, matrix: str) -> Table:
    matrix = matrix or "continuous"
    if matrix not in MATRICES:
        raise ConfigError(f"data.table.matrix={matrix}: {did_you_mean(matrix, MATRICES)}")
    values = np.loadtxt(folder / MATRICES[matrix], ndmin=2)
    return Table(_names(folder / "classes.txt"), _names(folder / "predicates.txt"), _unmark(values))


def _read_cub(folder: Path) -> Table:
    """Percentages -> shares. Class names as in the list, `001.Black_footed_Albatross`."""
    values = np.loadtxt(folder / "class_attribute_labels_continuous.txt", ndmin=2) / 100
    return Table(_names(folder / "classes.txt"), _names(folder / "attributes.txt"), values)


def _unmark(values: np.ndarray) -> np.ndarray:
    """-1 -> NaN."""
    return np.where(values == -1, np.nan, values.astype(np.float64))


def from_mat(arrays: dict[str, Any]) -> Table:
    """The table of an att_splits.mat: `original_att` with its missing values where it is there."""
    values = np.asarray(arrays["original_att" if "original_att" in arrays else "att"]).T
    names = tuple(str(cell[0]) for cell in arrays["allclasses_names"].ravel())
    numbered = tuple(f"attribute{k}" for k in range(1, values.shape[1] + 1))
    return Table(names, numbered, _unmark(values))
