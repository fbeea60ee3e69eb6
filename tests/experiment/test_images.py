"""images.json of every kind of problem; a fault in it does not lose the run."""

import logging
from pathlib import Path

import pytest

from helpers.small import session
from tlrun.experiment.images import write_images
from tlrun.report.read.own_images import read_images
from tlrun.run_folder.run_dir import RunDir

KINDS = {
    "digits_digitsm": ("method=dann", {"by_class", "augmented", "mistakes"}),
    "digits_styles_digitsm": ("method=source_only", {"by_class", "augmented", "mistakes"}),
    "digits_canvas": ("method=multitask", {"by_class_digit", "boxes_place", "mistakes"}),
    "digits_attributes": ("method=devise", {"by_class", "augmented", "mistakes"}),
    "digits_episodes": ("method=protonet", {"episode"}),
}


def written(folder: Path, *words: str) -> RunDir:
    opened = session(folder, *words)
    opened.build_all()
    opened.net.eval()
    _, outputs = opened.test()
    write_images(opened, opened.run_dir, outputs)
    return opened.run_dir


@pytest.mark.parametrize("data", KINDS)
def test_every_kind_of_problem_has_images(data: str, tmp_path: Path) -> None:
    method, expected = KINDS[data]
    few = ["data.test_episodes=4", "data.val_episodes=4"] if "episodes" in data else []
    run_dir = written(tmp_path / "run", f"data={data}", method, *few)
    sections, left_out = read_images(run_dir.images)
    assert not left_out
    assert {section.name for section in sections} == expected
    assert run_dir.images.stat().st_size < 500_000


def test_a_fault_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("tlrun.experiment.images.augmented", gone)
    with caplog.at_level(logging.WARNING):
        run_dir = written(tmp_path / "run")
    assert not run_dir.images.exists()
    assert "the page goes without images" in caplog.text


def test_none_for_a_model_that_is_there_for_comparison(tmp_path: Path) -> None:
    assert not written(tmp_path / "baseline").images.exists()
