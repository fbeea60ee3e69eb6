"""rank.csv, which `tlrun rank` writes: the transferability scores of nets, a line a stage."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlrun.evaluate.figures import finite
from tlrun.files.csv_file import Writer, read_rows

FILE = "rank.csv"
TITLES = {  # in the order of the columns
    "logme": "LogME",
    "h_score": "H-score",
    "h_score_shrunk": "H shrunk",
    "logistic": "logistic %",
    "knn": "kNN %",
    "leep": "LEEP",
    "nce": "NCE",
}
SHARES = ("logistic", "knn")  # 0 to 1 in the file, per cent on the screen


@dataclass
class StageScores:
    """cut: number of the stage from 1, so `transfer.cut=cut` carries it over. width: of its output.
    values: by the names of TITLES, None where a score does not apply. note: why."""

    net: str
    stage: str
    cut: int
    width: int
    values: dict[str, float | None]
    note: str = ""


def write_scores(folder: Path, lines: Sequence[StageScores], about: Mapping[str, Any]) -> None:
    """rank.csv, and rank.json that says of what and how it was made."""
    with (folder / FILE).open("w", newline="", encoding="utf-8") as stream:
        writer = Writer(stream)
        writer.writerow(["net", "stage", "cut", "width", *TITLES, "note"])
        for line in lines:
            values = [line.values.get(name) for name in TITLES]
            written = ["" if value is None else f"{value:.6g}" for value in values]
            writer.writerow([line.net, line.stage, line.cut, line.width, *written, line.note])
    text = json.dumps(dict(about), indent=2, ensure_ascii=False)
    (folder / "rank.json").write_text(f"{text}\n", encoding="utf-8")


def read_scores(path: Path) -> list[StageScores]:
    """What `write_scores` wrote; [] for a file that is not there or cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return [
                StageScores(
                    row["net"],
                    row["stage"],
                    int(row["cut"]),
                    int(row["width"]),
                    {name: _number(row.get(name)) for name in TITLES},
                    row.get("note", ""),
                )
                for row in read_rows(stream)
            ]
    except (OSError, ValueError, KeyError, csv.Error):
        return []


def _number(text: str | None) -> float | None:
    return finite(float(text)) if text else None


def table(lines: Sequence[StageScores]) -> str:
    """For the screen: a line a stage, * at the best of each column."""
    used = [name for name in TITLES if any(line.values.get(name) is not None for line in lines)]
    best = {
        name: max(v for line in lines if (v := line.values.get(name)) is not None) for name in used
    }
    header = ["net", "stage", "cut", "width", *(TITLES[name] for name in used), ""]
    rows = [header]
    for line in lines:
        cells = [_cell(name, line.values.get(name), best[name]) for name in used]
        rows.append([line.net, line.stage, str(line.cut), str(line.width), *cells, line.note])
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    texts = []
    for row in rows:
        cells = [
            cell.ljust(width) if i in (0, 1, len(row) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)


def _cell(name: str, value: float | None, best: float) -> str:
    if value is None:
        return "- "
    text = f"{100 * value:.1f}" if name in SHARES else f"{value:.3f}"
    return f"{text}{'*' if value == best else ' '}"
