"""Vectors of classes from language: embeddings of their names, or of texts about them.

    .npz .mat .csv   a feature file (feature_file.py): a row per text, its label is the class.
                     Several rows of a class are several prompts
    .txt .vec        GloVe's and word2vec's text format, `word number number ...` on each line. A
                     name of several words (polar_bear, blue+whale) is the mean of their vectors

Prompt ensemble (Radford et al., ICML 2021, section 3.1.4): each text's vector is brought to length
1, the mean of a class's vectors again: t_k = m / ‖m‖, m = (1/P) Σ_p v_kp / ‖v_kp‖.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tlrun.data.examples.feature_file import read_features
from tlrun.errors import DataError, did_you_mean

PACKAGED = Path(__file__).parent.parent / "sets" / "texts"
WORDS = (".txt", ".vec")
FILES = (*WORDS, ".npz")  # what is a table of vectors by its ending alone
SEPARATORS = re.compile(r"[\s_+\-./,]+")


def packaged(name: str) -> Path:
    """The texts of that name in the package, else the name as a path."""
    file = PACKAGED / f"{name}.csv"
    return file if file.is_file() else Path(name).expanduser()


def read_class_vectors(path: Path, classes: Sequence[str]) -> np.ndarray:
    """(len(classes), D) float64, rows of length 1. DataError that names what has no vector."""
    if path.suffix.lower() in WORDS:
        return ensemble(*_of_words(path, classes), classes, path)
    file = read_features(path)
    if file.labels is None:
        raise DataError(
            f"'{path}' does not say which class its rows describe; add an array (or a column) "
            "'classes' with a name per row."
        )
    return ensemble(file.x.astype(np.float64), [str(c) for c in file.labels], classes, path)


def ensemble(
    vectors: np.ndarray, names: Sequence[str], classes: Sequence[str], path: Path
) -> np.ndarray:
    """vectors: (R, D) of texts; names: (R,) the class of each -> (C, D), see the module."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(length).all() or (length == 0).any():
        raise DataError(f"'{path}' holds a vector without a direction (zeros, NaN); clean it.")
    unit, of = vectors / length, np.asarray(names)
    means = []
    for name in classes:
        rows = unit[of == name]
        if not len(rows):
            raise DataError(
                f"the class '{name}' has no vector in '{path}': {did_you_mean(name, set(names))}"
            )
        means.append(rows.mean(0))
    mean = np.stack(means)
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    if (length < 1e-9).any():
        raise DataError(f"the vectors of a class in '{path}' cancel each other out; clean them.")
    unit_mean: np.ndarray = mean / length
    return unit_mean


def _of_words(path: Path, classes: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """A row per class from a file of word vectors, of which only the words needed are parsed."""
    choices = {name: _spellings(name) for name in classes}
    needed = {word for lists in choices.values() for words in lists for word in words}
    found: dict[str, np.ndarray] = {}
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                word, _, numbers = line.rstrip().partition(" ")
                if word in needed and word not in found and " " in numbers:
                    found[word] = np.array(numbers.split(), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the word vectors '{path}' ({error}).") from error
    if len({len(vector) for vector in found.values()}) > 1:
        raise DataError(f"the word vectors in '{path}' differ in length; replace the file.")
    rows = []
    for name, lists in choices.items():
        known = next((words for words in lists if all(w in found for w in words)), None)
        if known is None:
            lacking = next(w for w in lists[-1] if w not in found)
            raise DataError(
                f"'{path}' has no word '{lacking}' for the class '{name}'; rename the class, or "
                "give the vectors as .npz or .csv."
            )
        rows.append(np.mean([found[word] for word in known], axis=0))
    return np.stack(rows), list(classes)


def _spellings(name: str) -> list[list[str]]:
    """Lists of words that may stand for a class, the nearest to its name first.

    Numbers before a name (CUB's `001.Black_footed_Albatross`) are no words of it.
    """
    words = [w for w in SEPARATORS.split(name) if w]
    words = [w for w in words if not w.isdigit()] or words
    phrases = [[name], ["_".join(words)], ["-".join(words)], words]
    return [*phrases, *([w.lower() for w in phrase] for phrase in phrases)]
