"""All pairs: jobs whose source is their target are skipped, counted, and named in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tlrun.cli.main import main
from tlrun.config.own_target import is_own_target
from tlrun.errors import ConfigError
from tlrun.report.read.run_record import read_record
from tlrun.report.statistics.provenance import never_begun
from tlrun.run_folder.record import recorded
from tlrun.run_folder.run_dir import RunDir, runs_in
from tlrun.sweep.own_targets import another_pair, skipped_jobs
from tlrun.sweep.space import read_command

PAIRS = ["data=pacs", "data.source=photo,cartoon,sketch", "data.target=photo,cartoon,sketch"]


@pytest.mark.parametrize(
    ("overrides", "own"),
    [
        (["data=pacs", "data.source=photo", "data.target=photo"], True),
        (["data=pacs", "data.source=[photo,cartoon]", "data.target=photo"], True),
        (["data=pacs", "data.source=[photo,cartoon]", "data.target=sketch"], False),
        (["data=pacs", "data.target=photo"], False),  # all_but_target
        (["data=pacs", "data.source=sketch"], True),  # the file's own target
        (["data=office_caltech_surf", "data.target.domain=amazon"], True),
        (["data=office_caltech_surf", "data.target.domain=dslr"], False),
        (["data=folder", "data.source.root=a/", "data.target.root=a"], True),
        (["data=folder", "data.source.root=a", "data.target.root=b"], False),
        (["data=folder", "data.source.root=a", "data.target.root=a", "data.target.list=x"], False),
        (["data=folder"], False),
        (["data=mine_of_nowhere", "data.source=a", "data.target=a"], True),
    ],
)
def test_is_own_target(overrides: list[str], own: bool) -> None:
    assert is_own_target(overrides) is own


def test_they_are_counted() -> None:
    assert skipped_jobs([*PAIRS, "method=dann,mcc", "seed=0,1,2"]) == 3 * 6
    assert skipped_jobs(["data=pacs", "data.source=photo", "data.target=photo,sketch"]) == 1
    assert skipped_jobs(["data=pacs", "data.source=photo", "data.target=photo", "seed=0,1"]) == 0
    assert skipped_jobs(["method=dann,mcc", "data.augment.source.flip=0,1"]) == 0


def test_another_pair_stands_in_the_check() -> None:
    first = ["method=dann", "data=pacs", "data.source=photo", "data.target=photo"]
    assert another_pair(first, PAIRS) == [*first[:2], "data.target=photo", "data.source=cartoon"]
    with pytest.raises(ConfigError, match="every job of this sweep"):
        another_pair(first, ["data=pacs", "data.source=photo", "data.target=photo,photo"])


def test_a_sweep_of_all_pairs(
    instead_of_training: Callable[[Callable[..., Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def execute(run: RunDir) -> dict[str, Any]:
        data = OmegaConf.load(run.config).data
        ran.append((data.source, data.target))
        with recorded(run):
            run.set_status("completed")
            run.write_json(run.summary, {"seed": 0})
        return {}

    instead_of_training(execute)
    assert main(["-m", "method=source_only", *PAIRS, "hydra.sweep.dir=sweep"]) == 0
    assert len(ran) == 6
    assert all(source != target for source, target in ran)
    folders = [path.name for path in runs_in("sweep")]
    assert len([p for p in Path("sweep").iterdir() if p.is_dir()]) == len(folders) == 6
    assert any(name.startswith("source_only_pacs_photo-sketch_seed0_") for name in folders)
    said = capsys.readouterr().err
    assert "3 of the jobs skipped: the source is the target" in said
    assert "6 of 6 jobs completed" in said
    jobs = [read_record(path) for path in runs_in("sweep")]
    assert never_begun(Path("sweep"), jobs) == (0, [])
    assert never_begun(Path("sweep"), jobs[1:])[0] == 1


def test_a_search_takes_one_pair() -> None:
    with pytest.raises(ConfigError, match=r"data\.target is no setting"):
        read_command(["data=pacs", "data.target=photo,sketch"], {"optimizer.lr": "interval(1,2)"})
