"""What CONTRIBUTING and extending.md show: their very files and commands, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.small import QUICK

DOCS = Path(__file__).parent.parent
PAGES = ("CONTRIBUTING.md", "docs/extending.md")
FILE = re.compile(r"^\*\*`([^`]+)`\*\*\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^tlrun (--config-dir my_conf .*)$", re.MULTILINE)


def cases() -> list[tuple[str, str]]:
    """(page, command) of every command with a folder of one's own; sweeps left out."""
    found = [(p, c) for p in PAGES for c in COMMAND.findall((DOCS / p).read_text("utf-8"))]
    return [(page, command) for page, command in found if " -m " not in command]


def write_files(page: str, folder: Path) -> list[str]:
    found = FILE.findall((DOCS / page).read_text(encoding="utf-8"))
    for name, content in found:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return [name for name, _ in found]


def tlrun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; beside the packages only `folder` can be imported."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["TLRUN_CACHE"] = str(folder / "cache")
    return subprocess.run(
        [sys.executable, "-m", "tlrun", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_both_pages_show_something() -> None:
    assert {page for page, _ in cases()} == set(PAGES)


def test_the_method_has_30_lines(tmp_path: Path) -> None:
    write_files("CONTRIBUTING.md", tmp_path)
    assert len((tmp_path / "my_methods.py").read_text().splitlines()) <= 30


@pytest.mark.parametrize(("page", "command"), cases(), ids=lambda text: text.split(" my_conf ")[-1])
def test_it_runs_as_shown(page: str, command: str, tmp_path: Path) -> None:
    write_files(page, tmp_path)
    words = shlex.split(command)
    quick = [
        word for word in QUICK if not (word.startswith("backbone.") and "backbone=" in command)
    ]
    done = tlrun(tmp_path, *words, *quick, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for key in ("method", "data", "backbone"):
        chosen = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
        assert not chosen or summary[key] == chosen[0]
    rows = (tmp_path / "run" / "metrics.jsonl").read_text()
    if "terms=[unit]" in command:
        assert '"loss/unit_norm"' in rows
        assert '"validator/margin"' in rows
    if "method=mine" in command:
        assert '"loss/information"' in rows
        (tmp_path / "my_conf").rename(tmp_path / "elsewhere")  # the saved config is enough
        done = tlrun(tmp_path, "evaluate", "run")
        assert done.returncode == 2
        assert "--trust my_methods" in done.stderr
        done = tlrun(tmp_path, "evaluate", "run", "--trust", "my_methods")
        assert done.returncode == 0, done.stderr
        assert "target_test/accuracy" in done.stdout


def test_they_are_listed(tmp_path: Path) -> None:
    for page in PAGES:
        write_files(page, tmp_path)
    listed = tlrun(tmp_path, "list", "--config-dir", "my_conf").stdout
    for name in ("mine", "turned", "small"):
        assert re.search(rf"^  {name} +\S", listed, re.MULTILINE), name
