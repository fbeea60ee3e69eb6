"""The documents say what is true: commands compose, links resolve, tables match the code."""

from __future__ import annotations

import inspect
import pkgutil
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf

import tlrun
from tlrun.cli.parsers import VERBS, parser_of
from tlrun.cli.train import variants
from tlrun.config.build import locate
from tlrun.config.compose import compose
from tlrun.config.packaged import conf_dir
from tlrun.data.pipeline.augment import OPS
from tlrun.evaluate.validators import VALIDATORS
from tlrun.run_folder.run_dir import RunDir
from tlrun.sweep.own_targets import another_pair

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "README.zh.md")
PAGES = [
    *(ROOT / name for name in (*READMES, "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
NOT_OURS = {"/launcher", ".launcher", "/sweeper", ".sweeper"}  # plugins of Hydra


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(name: str) -> Iterator[list[str]]:
    """The words after `tlrun` of every command line in a page: in blocks and in tables."""
    lines = [line for block in blocks(text_of(name), "bash") for line in block.splitlines()]
    lines += re.findall(r"^\| `(tlrun [^`]+)`", text_of(name), re.MULTILINE)
    for line in lines:
        words = shlex.split(line, comments=True)
        if "tlrun" in words and "mypy" not in words:
            yield words[words.index("tlrun") + 1 :]


@pytest.mark.parametrize("name", READMES)
def test_the_readme_is_short(name: str) -> None:
    assert len(text_of(name).splitlines()) < 120


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_one(name: str) -> None:
    for words in commands(name):
        verb = words[0] if words and "=" not in words[0] and not words[0].startswith("-") else ""
        if verb:
            assert verb in VERBS, words
            overrides = getattr(parser_of(verb).parse_intermixed_args(words[1:]), "overrides", [])
            if verb == "evaluate" and not any(o.startswith("data=") for o in overrides):
                overrides = ["data=folder", *overrides]  # they change what the run was trained on
            check(overrides)
            continue
        args = get_args_parser().parse_intermixed_args(words)
        if not args.shell_completion and not args.config_dir:  # a folder of the reader's own
            check(args.overrides, args.multirun)


def check(overrides: list[str], multirun: bool = False) -> None:
    """Compose; of a sweep, every value of every axis once, but pairs that it skips."""
    ours = [o for o in overrides if not (o.startswith("hydra") and any(n in o for n in NOT_OURS))]
    for variant in variants(ours) if multirun else [ours]:
        composes(tuple(another_pair(variant, ours) if multirun else variant))


@cache
def composes(overrides: tuple[str, ...]) -> None:
    """Many commands stand in several pages, and those of one README in the other."""
    compose(overrides)


def test_commands_are_found() -> None:
    """Lest the search for them breaks and the test above holds of nothing."""
    assert sum(len(list(commands(name))) for name in NAMES) > 50
    assert [] in list(commands("README.md"))  # pip install . && tlrun


def sections(name: str) -> list[str]:
    """The text before the first `## ` of a page, and that of each section."""
    return re.split(r"^## .*\n", text_of(name), flags=re.MULTILINE)


def code(text: str) -> list[str]:
    """The lines of the fenced blocks without comments, then what stands in `...`, sorted."""
    fenced = re.findall(r"^```\w+\n.*?^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.partition("# ")[0].rstrip() for block in fenced for line in block.splitlines()]
    prose = re.sub(r"^```\w+\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return lines + sorted(re.findall(r"`[^`]+`", prose))


def table_facts(text: str) -> list[list[str]]:
    """Of each row of a table: its code, links and figures, cell by cell, without the words."""
    facts = r"`[^`]+`|\]\([^)]+\)|\d[\d.]*(?: ± [\d.]+)?|–"
    lines = re.findall(r"^\|(.*)\|$", text, re.MULTILINE)
    return [[" ".join(re.findall(facts, cell)) for cell in line.split("|")] for line in lines]


def test_both_readmes_say_the_same() -> None:
    """Commands, keys, tables and links; a change of one needs the same change of the other."""
    english, chinese = (sections(name) for name in READMES)
    assert len(english) == len(chinese)
    for ours, theirs in zip(english, chinese, strict=True):
        assert code(ours) == code(theirs)
        assert table_facts(ours) == table_facts(theirs)
        links = [set(re.findall(r"\]\(([^)]+)\)", text)) for text in (ours, theirs)]
        assert links[0] - set(READMES) == links[1] - set(READMES)
    assert "[中文](README.zh.md)" in english[0]
    assert "[English](README.md)" in chinese[0]


def test_the_readme_has_every_method_term_and_one_preset_a_family() -> None:
    families = [row for row in table_facts(sections("README.md")[-1]) if len(row) == 5][2:]
    listed = " ".join(row[2] for row in families)
    for group in ("method", "terms"):
        for file in (conf_dir() / group).glob("*.yaml"):
            assert f"`{file.stem}`" in listed, (group, file.stem)
    presets = [preset for row in families for preset in re.findall(r"`([^`]+)`", row[3])]
    assert len(presets) >= len(families) - 1  # terms have none of their own
    for preset in presets:
        assert (conf_dir() / "experiment" / f"{preset}.yaml").exists(), preset
    assert f"{len(list((conf_dir() / 'balance').glob('*.yaml')))} [balances]" in text_of(
        "README.md"
    )


@pytest.mark.parametrize("name", NAMES)
def test_python_blocks_compile(name: str) -> None:
    for block in blocks(text_of(name), "python"):
        compile(block, name, "exec")


@pytest.mark.parametrize("name", [*NAMES, "CHANGELOG.md"])
def test_local_links_resolve(name: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text_of(name)):
        if target.startswith("http"):
            continue
        page = (ROOT / name).parent / target if target else ROOT / name
        assert page.exists(), f"{name}: {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slug(title) for title in titles}, f"{name}: {target}#{anchor}"


def slug(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


# ---- tables against the code ----------------------------------------------------------------


def rows(name: str, section: str) -> dict[str, list[str]]:
    """{first cell: the others} of the table rows under the heading `section`.

    A first cell may have several names, one after the other.
    """
    part = re.split(r"^## ", text_of(name).partition(f"\n## {section}\n")[2], flags=re.MULTILINE)[0]
    cells = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in part.splitlines()
        if line.startswith("| `")
    ]
    assert cells, f"{name}: no table under {section}"
    return {name: rest for first, *rest in cells for name in first.split("`, `")}


def value(text: str) -> Any:
    return yaml.safe_load(text)


def test_config_lists_every_key_with_its_default() -> None:
    cfg: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "config.yaml"))
    evaluate = {f"evaluate.{key}": default for key, default in cfg.pop("evaluate").items()}
    top = {k: v for k, v in {**cfg, **evaluate}.items() if k not in ("defaults", "hydra")}
    listed = rows("docs/config.md", "Keys at the top")
    assert listed.keys() == top.keys()
    assert {k: value(v[0]) for k, v in listed.items() if k != "choices"} == {
        k: v for k, v in top.items() if k != "choices"
    }
    trainer = OmegaConf.to_container(OmegaConf.load(conf_dir() / "trainer" / "default.yaml"))
    assert {k: value(v[0]) for k, v in rows("docs/config.md", "trainer").items()} == trainer


def test_config_lists_every_group_and_the_options_of_the_small_ones() -> None:
    listed = rows("docs/config.md", "Groups")
    assert listed.keys() == {path.name for path in conf_dir().iterdir() if path.is_dir()}
    for group in ("optimizer", "schedule", "logger", "terms"):
        for file in (conf_dir() / group).glob("*.yaml"):
            assert file.stem in listed[group][0], (group, file.stem)


@pytest.mark.parametrize(
    "file", sorted((conf_dir() / "method").glob("*.yaml")), ids=lambda f: f.stem
)
def test_methods_lists_every_method_and_argument(file: Path) -> None:
    pages = [p for p in NAMES if p == "docs/methods.md" or p.startswith("docs/methods/")]
    text = next((t for p in pages if f"\n## {file.stem}\n" in (t := text_of(p))), "")
    assert text, f"no section {file.stem} in {', '.join(pages)}"
    for argument in inspect.signature(locate(OmegaConf.load(file)._target_)).parameters:
        assert f"`{argument}`" in text, argument


@pytest.mark.parametrize(
    "file", sorted((conf_dir() / "balance").glob("*.yaml")), ids=lambda f: f.stem
)
def test_balances_lists_every_balance_and_argument(file: Path) -> None:
    section = re.split(
        r"^#",
        text_of("docs/methods/balances.md").partition(f"\n## {file.stem}\n")[2],
        flags=re.MULTILINE,
    )[0]
    assert section, file.stem
    for argument in inspect.signature(locate(OmegaConf.load(file)._target_)).parameters:
        assert f"`{argument}`" in section, argument


def test_data_lists_every_set_and_operation() -> None:
    sets = {file.stem for file in (conf_dir() / "data").glob("*.yaml")}
    assert rows("docs/data.md", "The sets").keys() == sets
    assert rows("docs/data.md", "Augmentation").keys() == OPS.keys()


def test_selection_lists_every_validator_and_rule() -> None:
    packaged = {
        n for n, v in VALIDATORS.items() if v.score.__module__ == "tlrun.evaluate.validators"
    }
    assert rows("docs/selection.md", "Validators").keys() == packaged
    for file in (conf_dir() / "select").glob("*.yaml"):
        assert f"`{file.stem}`" in text_of("docs/selection.md")


def test_run_folder_lists_every_file() -> None:
    text = text_of("docs/run_folder.md")
    for name, member in vars(RunDir).items():
        if isinstance(member, property):
            assert f"`{getattr(RunDir('x'), name).name}" in text, name


@pytest.mark.parametrize("name", [*NAMES, "CHANGELOG.md"])
def test_files_and_modules_that_are_named_exist(name: str) -> None:
    text = text_of(name)
    for path in re.findall(r"\b((?:tlrun|tests|scripts)/[\w/.-]*\w\.\w+)", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"`([\w/]+\.py)`", text):
        inside = any((ROOT / folder / path).exists() for folder in ("", "tlrun", "scripts"))
        assert inside or path.startswith("my_") or "/" not in path, path
    for dotted in re.findall(r"`(tlrun\.[a-z_]+\.[\w.]+)[`(]", text):
        pkgutil.resolve_name(dotted)


def tree() -> dict[str, str]:
    """{path: what CONTRIBUTING says of it}, by the indentation of "Where things go"."""
    block = text_of("CONTRIBUTING.md").partition("\n## Where things go\n")[2].split("```")[1]
    paths: dict[str, str] = {}
    folders: list[tuple[int, str]] = []  # (indentation, path) of the folders around a line
    for line in block.strip("\n").splitlines():
        indent = len(line) - len(line.lstrip())
        names, _, about = line.strip().partition("  ")
        folders = [folder for folder in folders if folder[0] < indent]
        inside = folders[-1][1] if folders else ""
        for name in names.split(", "):
            paths[inside + name] = about.strip()
        if names.endswith("/") and ", " not in names:
            folders.append((indent, inside + names))
    return paths


def test_the_tree_of_contributing_is_the_tree() -> None:
    paths = tree()
    for path, about in paths.items():
        assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file(), path
        folders = [ROOT / path, (ROOT / path).parent, ROOT / "tlrun"]
        for name in re.findall(r"\b\w+(?:\.py|/)", about):
            assert any((folder / name).exists() for folder in folders), (path, name)
    packages = {f"{p.parent.relative_to(ROOT)}/" for p in (ROOT / "tlrun").rglob("__init__.py")}
    assert packages == {p for p in paths if p.startswith("tlrun/") and p.endswith("/")}
    top = {f"tlrun/{p.name}" for p in (ROOT / "tlrun").glob("[a-z]*.py")}
    assert top <= paths.keys()
    assert len(paths) > 60
    block = text_of("CONTRIBUTING.md").partition("\n## Where things go\n")[2].split("```")[1]
    assert len(block.splitlines()) < 56  # one screen


def test_the_rooms_stand_in_the_order_of_the_layers() -> None:
    layers = text_of("pyproject.toml").partition("\nlayers = [")[2].partition("]")[0]
    order = re.findall(r"tlrun\.(\w+)", layers)
    listed = [path.split("/")[1].removesuffix(".py") for path in tree() if path[:6] == "tlrun/"]
    rooms = [name for name in dict.fromkeys(listed) if name]
    assert set(rooms) == set(order)
    folders = [name for name in order if (ROOT / "tlrun" / name).is_dir()]
    assert [name for name in rooms if name in folders] == folders


def test_the_makefile_runs_what_is_there_and_contributing_names_it() -> None:
    makefile, contributing = text_of("Makefile"), text_of("CONTRIBUTING.md")
    for path in re.findall(r"\b(?:tests|scripts)/[\w/.]+", makefile):
        assert (ROOT / path).exists(), path
    targets = set(re.findall(r"^([a-z-]+): ", makefile, re.MULTILINE)) - {"help"}
    assert targets == set(re.findall(r"^make ([a-z-]+)", contributing, re.MULTILINE))
    assert {"test", "test-fast", "lint", "types", "docs"} < targets


def test_sections_that_the_code_refers_to_exist() -> None:
    decisions = text_of("docs/decisions.md")
    for title in ("Precision", "Several devices", "Batch norm", "Our own worker launcher"):
        assert f"\n## {title}\n" in decisions


def test_versions_agree() -> None:
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["version"] == tlrun.__version__
    assert tlrun.__version__ in text_of("CHANGELOG.md")
