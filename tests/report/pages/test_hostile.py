"""Pages, tables and csv of runs whose every name was chosen to harm: text, and nothing but text."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from helpers.html_page import Page
from helpers.run_folders import make_run, make_search
from tlrun.files.csv_file import read_rows
from tlrun.report.pages.write import write_report

SCRIPT = "<img src=x onerror=alert(1)>"
BREAK = "\"'></td></script><script>alert(2)</script>{{ 7*7 }}"
FORMULA = '=HYPERLINK("http://x.example","y")'
MARKDOWN = "a|b ![x](http://x.example/i.png) \\| `c`"
FOLDER = "javascript:alert(3)"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    sweep = tmp_path / "sweep"
    for name, method, data in ((FOLDER, SCRIPT, FORMULA), (BREAK.replace("/", ""), FORMULA, BREAK)):
        for seed, folder in enumerate((name, f"{name} 2")):
            run = make_run(
                sweep / folder,
                method=method,
                data="d",
                seed=seed,
                overrides=(f"method.name={SCRIPT}", f"tags=[{FORMULA}]"),
                classes=(SCRIPT, BREAK, FORMULA, MARKDOWN),
                baseline=False,
                images=20,
            )
            summary = json.loads((run / "summary.json").read_text())
            for key, value in (("data", data), ("backbone", BREAK), ("selection_rule", SCRIPT)):
                summary[key] = value
            (run / "summary.json").write_text(json.dumps(summary))
            environment = json.loads((run / "environment.json").read_text())
            environment["command"] = ["tlrun", BREAK]
            (run / "environment.json").write_text(json.dumps(environment))
    make_run(
        sweep / "failed", method=SCRIPT, state="failed", error=f"{BREAK}{MARKDOWN}\r\n# {SCRIPT}"
    )
    commands = {"0": {"overrides": [SCRIPT, BREAK, "$(touch ran)"], "config_dir": BREAK}}
    (sweep / "sweep.yaml").write_text(json.dumps({"commands": commands}))
    return sweep


def is_harmless(page: Page) -> None:
    page.assert_self_contained()
    assert "x" not in page.loaded
    for word in ("alert(", "onerror"):
        assert word not in page.code
    assert not re.search(r"<(img|script)[^>]*(onerror|src=x)", page.source)
    assert "49" not in re.findall(r"\{\{ (\d+) \}\}", page.source)
    assert not [link for link in page.links if ":" in link], page.links


@pytest.mark.usefixtures("no_plots")
def test_a_page_of_a_run(hostile: Path) -> None:
    for run in (path for path in hostile.iterdir() if path.is_dir()):
        page = Page(write_report(run))
        is_harmless(page)
        if run.name != "failed":
            assert BREAK in page.text
            assert SCRIPT in page.text


@pytest.mark.usefixtures("no_plots")
def test_the_page_and_the_tables_of_a_sweep(hostile: Path) -> None:
    page = Page(write_report(hostile))
    is_harmless(page)
    for text in (SCRIPT, BREAK, FORMULA, "'$(touch ran)'"):
        assert text in page.text
    with (hostile / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert f"'{FORMULA}" in cells
    assert not [c for c in cells if c[:1] in tuple("=+@\t\r") and c]
    with (hostile / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(read_rows(file))
    assert {(row["data"], row["method"]) for row in rows} >= {(FORMULA, SCRIPT), (BREAK, FORMULA)}
    text = (hostile / "leaderboard.md").read_text()
    assert "<img" not in text
    assert "<script" not in text
    assert not re.search(r"(?<!\\)(?:\\\\)*\[[^\]]*\]\(", text)  # no link, no picture
    for table in text.split("\n\n"):  # and no cell too many
        rows_of = [line for line in table.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in rows_of}) <= 1


@pytest.mark.usefixtures("no_plots")
def test_a_search(tmp_path: Path) -> None:
    sweep = make_search(tmp_path / "sweep")
    found = json.loads((sweep / "search.json").read_text())
    found["metric"] = SCRIPT
    for trial in found["trials"]:
        trial["params"] = {BREAK: SCRIPT}
    found["trials"][0]["jobs"] = ["../../elsewhere", FOLDER]
    (sweep / "search.json").write_text(json.dumps(found))
    is_harmless(Page(write_report(sweep)))
