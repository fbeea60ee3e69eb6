"""Where figures of docs/results.md stand once more: the headers of the presets and both READMEs.

`scripts/results.py --write` copies them from the table's rows, so nobody types a figure twice;
tests/test_experiments.py holds the copies to the table.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
PRESETS = ROOT / "conf" / "experiment"
READMES = (ROOT / "README.md", ROOT / "README.zh.md")
FIGURE = r"[\d.]+(?: ± [\d.]+)?"
RANKED = 3  # seeds from which on a row has a rank
BOUNDS = ("digits/source_only/", "digits/source_only_plain/", "digits/target_only/")
LONGER = ("digits/best_source_only/", "digits/best/")  # of another net and budget

# README's lines: the rows of source only, DANN, the best (None: the best ranked of the recipe that
# has its budget), and source only and the method of the longer budget.
FRONT: tuple[tuple[str | None, ...], ...] = (
    *(
        (f"digits/source_only/{pair}", f"digits/dann/{pair}", None, *(f"{p}{long}" for p in LONGER))
        for pair, long in (
            ("mnist_usps", "mnist_usps"),
            ("usps_mnist", "usps_mnist"),
            ("mnist_mnistm", "mnist_mnistm_margin"),
        )
    ),
    ("digits_digitsm/source_only", "digits_digitsm/dann", "", "", ""),
)
RULE = "|---" * (2 + len(FRONT[0])) + "|\n"  # under the titles of README's table


def cells(line: str) -> list[str]:
    """Of a line of a table: `preset`, n, selected, last, oracle, ..."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows_of(table: str) -> dict[str, list[str]]:
    """By name, the cells of each row of docs/results.md that is a preset's."""
    lines = (cells(line) for line in table.splitlines() if line.startswith("| `"))
    return {found[0].strip("`"): found for found in lines if len(found) == 10}


def with_figures(header: str, row: list[str], pair: str) -> str | None:
    """A preset's text with the figures of a row in its `ours`; None where it has no place.

    Its words stay as they are: `97.9 ± 0.1 (n=3, MNIST→USPS, selected by bnm; last 97.8)`.
    """
    _, n, selected, last, oracle, *_ = row
    named = rf", {re.escape(pair)}(?=[,;)])" if pair else ""
    place = re.search(rf"{FIGURE} \(n=\d+{named}([^)]*\))?", header)
    if place is None:
        return None
    rest = place[1] or ""
    rest = re.sub(rf"last {FIGURE}", f"last {last}", rest)
    rest = re.sub(rf"oracle {FIGURE}", f"oracle {oracle}", rest)
    words = f"{selected} (n={n}" + (f", {pair}" if pair else "") + rest
    return header[: place.start()] + words + header[place.end() :]


def write_headers(rows: Iterable[tuple[Path, list[str], str]]) -> None:
    """Of each: the preset's file, its row's cells, and the pair that its header names it by."""
    for path, row, pair in rows:
        text = path.read_text(encoding="utf-8")
        written = with_figures(text, row, pair)
        if written is None:
            print(f"{path.stem}: its header has no `ours` of {pair or 'it'}", file=sys.stderr)
        elif written != text:
            path.write_text(written, encoding="utf-8")


def front_figures(rows: dict[str, list[str]]) -> list[list[str]]:
    """The figures of each line of README's table; "" of none."""
    figures = []
    for names in FRONT:
        recipe = names[0].rpartition("/")[2] if names[0] else ""
        known = [best(rows, recipe) if name is None else name for name in names]
        figures.append([rows[name][2] if name in rows else name for name in known])
    return figures


def best(rows: dict[str, list[str]], recipe: str) -> str:
    """The first ranked row of a recipe's table, which is in order, that is no bound."""
    return next(
        name
        for name, row in rows.items()
        if name.startswith("digits/") and name.endswith(f"/{recipe}")  # multitask has one, too
        if int(row[1]) >= RANKED and not name.startswith((*BOUNDS, *LONGER))
    )


def with_front(readme: str, figures: list[list[str]]) -> str:
    """README with these figures in the lines of its table of results; labels stay."""
    begin = readme.index(RULE) + len(RULE)
    lines = readme[begin:].splitlines(keepends=True)
    for i, new in enumerate(figures):
        label, *_, published = cells(lines[i])
        line = "| " + " | ".join([label, *new, published]) + " |\n"
        lines[i] = re.sub(r" +", " ", line)  # an empty cell is one blank
    return readme[:begin] + "".join(lines)


def write_readmes(rows: dict[str, list[str]]) -> None:
    figures = front_figures(rows)
    for path in READMES:
        text = path.read_text(encoding="utf-8")
        path.write_text(with_front(text, figures), encoding="utf-8")
