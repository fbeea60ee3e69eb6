"""Files of a run that are damaged, lost or read-only: every verb, one sentence, right results."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tlrun.experiment.resume  # noqa: F401  # before another test patches what it imports
from helpers.small import QUICK
from tlrun.cli.main import main
from tlrun.config import schema
from tlrun.config.saved import load_config
from tlrun.config.schema import Augmentation
from tlrun.data.pipeline.augment import OPS
from tlrun.errors import ConfigError
from tlrun.run_folder.json_file import Damaged
from tlrun.run_folder.run_dir import RunDir

WORDS = (*QUICK, "method=source_only", "hydra.run.dir=run")
RANDOM = bytes(range(256)) * 2
VERBS: dict[str, list[str]] = {
    "resume": ["resume", "run"],
    "evaluate": ["evaluate", "run"],
    "predict": ["predict", "run", "picture.png"],
    "export": ["export", "run", "--to", "torch_export"],
    "report": ["report", "run"],
    "reproduce": ["reproduce", "run"],
    "init": [*QUICK, "method=source_only", "dry_run=true", "init=run"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run, with its page."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(list(WORDS)) == 0
    return folder / "run"


@pytest.fixture
def run(finished: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """Its copy in ./run, a picture beside it."""
    shutil.copytree(finished, in_tmp / "run")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(in_tmp / "picture.png")
    monkeypatch.setattr("tlrun.experiment.lifecycle.show", lambda run_dir: None)
    return RunDir(in_tmp / "run")


Said = Callable[[str], tuple[int, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """`said(verb)`: (exit code, stderr); what holds for every command is checked."""
    monkeypatch.delenv("TLRUN_DEBUG", raising=False)

    def call(verb: str) -> tuple[int, str]:
        code = main(VERBS[verb])
        text = capsys.readouterr().err
        assert "Traceback" not in text
        assert code in (0, 1, 2)
        if code:
            last = text.rstrip("\n").rpartition("\n")[2]
            assert last.startswith("tlrun: error: ")
            assert not re.search(r"\(\w+\.py:\d+\)", last), last
        return code, text

    return call


# ---- config.yaml: without it nothing is known of a run ------------------------------------------


@pytest.mark.parametrize("verb", ["resume", "predict", "init"])
@pytest.mark.parametrize(
    "content",
    [b"", b"trainer: 5\n", b"[1]\n", b"5\n", RANDOM, "name: k\xe4se".encode("latin-1"), b"{a: [\n"],
    ids=["empty", "trainer", "list", "number", "random", "latin-1", "cut"],
)
def test_a_damaged_config(verb: str, content: bytes, run: RunDir, said: Said) -> None:
    run.config.write_bytes(content)
    code, text = said(verb)
    if verb == "init":  # its weights are whole, and say what they are of
        assert code == 0
        return
    assert code == 2
    assert "config.yaml" in text or "trainer" in text or "is missing" in text


@pytest.mark.parametrize("key", ["data", "method", "phases"])
@pytest.mark.parametrize("value", ["5", "[1]", "null", "${oops}", "word"])
def test_a_config_with_a_wrong_group(key: str, value: str, run: RunDir) -> None:
    lines = _without_block(run.config.read_text(), key)
    run.config.write_text("\n".join([*lines, f"{key}: {value}"]))
    with pytest.raises(ConfigError):
        load_config(run.config)


def _without_block(text: str, key: str) -> list[str]:
    kept, inside = [], False
    for line in text.splitlines():
        if not line.startswith((" ", "-")):
            inside = line.startswith(f"{key}:")
        if not inside:
            kept.append(line)
    return kept


# ---- the others ---------------------------------------------------------------------------------


def damage(run: RunDir, name: str, content: bytes) -> None:
    (run.path / name).write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "name", ["status.json", "environment.json", "summary.json", "label_space.json"]
)
@pytest.mark.parametrize("content", [b"5", b"[1]", RANDOM], ids=["number", "list", "random"])
def test_damaged_json(verb: str, name: str, content: bytes, run: RunDir, said: Said) -> None:
    damage(run, name, content)
    code, text = said(verb)
    needed = {
        "predict": {"label_space.json", "summary.json"},
        "export": {"label_space.json", "summary.json"},
        "evaluate": {"label_space.json"},
        "init": {"label_space.json", "summary.json"},
        "reproduce": {"status.json", "summary.json", "environment.json"},
    }
    if name in needed.get(verb, set()):
        assert code in (1, 2)
        assert name in text or "is not complete" in text
    else:
        assert code == 0


@pytest.mark.parametrize("name", ["summary.json", "label_space.json"])
def test_resume_writes_a_damaged_file_anew(name: str, run: RunDir, said: Said) -> None:
    whole = json.loads((run.path / name).read_text())
    damage(run, name, b"[1]")
    assert said("predict")[0] == 1
    assert said("resume")[0] == 0
    told = json.loads((run.path / name).read_text())
    for found in (whole, told):
        found.pop("peak_memory_mb", None)
        found.pop("wall_seconds", None)
    assert told == whole
    assert said("predict")[0] == 0


def test_label_space_with_a_wrong_key(run: RunDir) -> None:
    space = json.loads(run.label_space.read_text())
    for key, value in (("classes", 5), ("classes", [1]), ("tasks", {"a": 1}), ("input_shape", [0])):
        damage(run, "label_space.json", json.dumps({**space, key: value}).encode())
        with pytest.raises(Damaged, match=rf"expected {key} to be"):
            run.read_label_space()


def test_a_bad_row_of_figures_is_named(run: RunDir) -> None:
    lines = run.metrics.read_text().splitlines(keepends=True)
    for bad in ('{"step": 1,\n', "5\n", "\x00\x01\n"):
        run.metrics.write_text("".join([lines[0], bad, *lines[1:]]))
        with pytest.raises(Damaged, match=r"metrics\.jsonl, line 2, is damaged"):
            run.read_metrics()
    run.metrics.write_text("".join([lines[0], "\n", *lines[1:], '{"torn']))
    assert len(run.read_metrics()) == len(lines)


def test_a_damaged_sidecar_leads_to_the_checkpoint_before(
    run: RunDir, said: Said, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run.checkpoints / "last.pt"
    before = torch.load(whole, weights_only=True)["step"]
    damage(run, "checkpoints/last.json", b"[1]")
    run.set_status("interrupted")
    code, _ = said("resume")
    assert code == 0
    assert "last.pt is damaged; going on from the checkpoint before it" in caplog.text
    assert torch.load(whole, weights_only=True)["step"] == before


@pytest.mark.parametrize("verb", ["resume", "predict", "evaluate"])
def test_checkpoints_that_are_a_file(verb: str, run: RunDir, said: Said) -> None:
    shutil.rmtree(run.checkpoints)
    run.checkpoints.write_text("x")
    code, _ = said(verb)
    assert code == (0 if verb == "resume" else code)
    if verb != "resume":
        assert code in (1, 2)


@pytest.mark.parametrize(
    "name", ["summary.json", "environment.json", "metrics.jsonl", "checkpoints/last.pt"]
)
def test_reproduce_reads_what_it_compares_before_it_trains(
    name: str, run: RunDir, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlrun.experiment.start.run_experiment", pytest.fail)
    (run.path / name).write_bytes(b"[1]\n")
    code, text = said("reproduce")
    assert code == 1
    assert Path(name).name in text
    (run.path / name).unlink()
    if name != "environment.json":
        code, text = said("reproduce")
        assert code == 2
        assert f"has no {name} left to compare" in text
        (run.path / name).mkdir()
        assert said("reproduce") == (code, text)
    assert not Path("run_reproduced").exists()


def test_a_lock_that_is_a_folder(run: RunDir, said: Said) -> None:
    (run.path / ".lock").unlink(missing_ok=True)
    (run.path / ".lock").mkdir()
    run.set_status("interrupted")
    code, text = said("resume")
    assert code == 1
    assert ".lock" in text


# ---- a folder that cannot be written ------------------------------------------------------------


def test_evaluate_prints_where_it_cannot_write(
    run: RunDir, said: Said, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.path / "evaluations").write_text("a file is there")
    assert main(VERBS["evaluate"]) == 0
    told = capsys.readouterr()
    assert "target_test/accuracy" in told.out
    assert "written to" not in told.out
    assert "cannot write run/evaluations/" in caplog.text + told.err


def test_a_report_elsewhere(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.report.unlink()
    shutil.rmtree(run.plots)
    before = sorted(run.path.rglob("*"))
    assert main(["report", "run", "--output", "shown"]) == 0
    assert Path("shown/report.html").is_file()
    assert list(Path("shown/plots").glob("*.png"))
    assert sorted(run.path.rglob("*")) == before
    assert main(["report", "run", "run", "--output", "shown"]) == 2
    assert main(["report", ".", "--output", "shown"]) == 2
    capsys.readouterr()

    def refuse(path: Path, content: Any) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr("tlrun.report.pages.write.write_atomic", refuse)
    assert main(VERBS["report"]) == 1
    sentence = "tlrun: error: cannot use run/report.html: Read-only file system"
    assert capsys.readouterr().err.strip().endswith(sentence)


# ---- a kill between "completed" and the page ----------------------------------------------------


@pytest.mark.parametrize(
    "lost", [["model.safetensors"], ["predictions.csv"], ["features.npz", "summary.json"]]
)
def test_resume_makes_what_a_complete_run_lacks(
    lost: list[str], run: RunDir, said: Said, caplog: pytest.LogCaptureFixture
) -> None:
    def contents() -> dict[str, bytes]:
        told = (".lock", "run.log", "summary.json")
        files = (p for p in run.path.rglob("*") if p.is_file() and p.name not in told)
        return {str(p.relative_to(run.path)): p.read_bytes() for p in files}

    before = contents()
    times = {name: (run.path / name).stat().st_mtime_ns for name in before}
    for name in lost:
        (run.path / name).unlink()
    known = [name for name in lost if name == "summary.json"] or lost  # it names the others
    assert run.missing() == known
    assert said("resume")[0] == 0
    assert f"is complete but for {', '.join(known)}" in caplog.text
    assert run.missing() == []
    assert contents() == before
    for name in set(before) - set(lost):
        assert (run.path / name).stat().st_mtime_ns == times[name], name
    with caplog.at_level(logging.WARNING):
        assert said("resume")[0] == 0
    assert "nothing to resume" in caplog.text


def test_resume_makes_the_page(
    finished: Path, in_tmp: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(finished, "run")
    run = RunDir("run")
    run.report.unlink()
    shutil.rmtree(run.plots)
    assert main(["resume", "run"]) == 0
    assert run.report.is_file()
    assert list(run.plots.glob("*.png"))
    assert "is complete but for report.html" in caplog.text


def test_without_checkpoints_what_is_lost_stays_lost(run: RunDir, said: Said) -> None:
    shutil.rmtree(run.checkpoints)
    run.model.unlink()
    code, text = said("resume")
    assert code == 1
    assert "holds no checkpoint any more" in text


def test_the_augmentations_are_those_of_the_schema() -> None:
    assert list(Augmentation.__dataclass_fields__) == list(OPS)
    assert schema.Augmentation is Augmentation


def test_auto_means_no_baseline_where_there_is_none(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tlrun.experiment.lifecycle.show", lambda run_dir: None)
    open_set = ["method=osbp", "data.label_spaces=open", "data.source_classes=[0,1,2]"]
    words = [*QUICK, *open_set, "trainer.batch_size=16", "hydra.run.dir=run"]
    assert main([*words, "baseline=auto"]) == 0
    assert load_config("run/config.yaml").baseline is False
    assert not Path("run/baseline").exists()
    assert main([*words, "baseline=true", "hydra.run.dir=other"]) == 2
    assert "there is no baseline to train beside this method" in capsys.readouterr().err
