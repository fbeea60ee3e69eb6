"""YAML of a run folder that anybody may have written: plain values, or one sentence at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from tlrun.config.packaged import conf_dir
from tlrun.errors import ConfigError
from tlrun.files import yaml_file
from tlrun.files.yaml_file import LARGEST, read_yaml

# each level ten times the one before: 10^12 values in 300 bytes
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.fixture(params=["with libyaml", "without"], autouse=True)
def libyaml(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every PyYAML has it."""
    if request.param == "without":
        monkeypatch.setattr(yaml_file, "_Scanned", None)


def test_reads_what_omegaconf_writes(tmp_path: Path) -> None:
    tree = {
        "lr": 1e-4,
        "name": "1e-4",
        "none": None,
        "yes": "yes",
        "date": "2025-01-31",
        "time": "12:30",
        "list": [1, {"a": 2.5}, True, float("inf"), "é ${x} *a &b"],
    }
    path = tmp_path / "config.yaml"
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(tree)), encoding="utf-8")
    assert read_yaml(path) == tree


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (BOMB, "alias"),
        ("a: &a [*a]", "alias"),
        ("a: &a {b: 1}\nc: {<<: *a}", "alias"),
        ("[" * 100_000, "levels deep"),
        ("".join(" " * n + "a:\n" for n in range(1000)), "levels deep"),
        ("a: '" + "x" * LARGEST + "'", "too large"),
        ("a: " + ":".join(["1"] * 300_000), "a number of"),
        ("a: " + "9" * 900_000, "a number of"),
        ("a: !!python/object/apply:os.system ['touch ran']", "ConstructorError"),
        ("a: !!python/name:os.system", "ConstructorError"),
        ("a: !!python/object/apply:pathlib.PosixPath [/etc]", "ConstructorError"),
        ("a: 1\na: 2", "ConstructorError"),
        ("a: [1", "ParserError"),
        ("a: !!int x", "ValueError"),
        (b"a: \xe9", "UnicodeDecodeError"),
        (b"a: \x00", "ReaderError"),
    ],
)
def test_refused_at_once(tmp_path: Path, content: str | bytes, why: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.process_time()
    with pytest.raises(ConfigError, match=why) as caught:
        read_yaml(path)
    # Each takes milliseconds of CPU; what is not refused early takes minutes or all memory.
    assert time.process_time() - began < 5
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="PyYAML without libyaml")
def test_libyaml_reads_the_same() -> None:
    texts = [path.read_text() for path in sorted(conf_dir().rglob("*.yaml"))]
    texts += ["a: {b: [1, 0x1F, 1_000, .5, 1e-4, ~, on]}\n'c d': |\n  e\n  f\n", "- !!str 1\n- ? x"]
    assert len(texts) > 100
    for text in texts:
        loaders = (yaml_file._Loader, yaml_file._ScannedByC)
        one, other = (yaml.load(text, Loader=loader) for loader in loaders)
        assert repr(one) == repr(other)


def test_empty_and_missing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").touch()
    assert read_yaml(tmp_path / "empty.yaml") is None
    with pytest.raises(ConfigError, match="No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_yaml(tmp_path)
