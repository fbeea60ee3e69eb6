"""`tlrun reproduce`: a run of each family, what is said beside the verdict, where it is put."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.hooks import crash_at_call, in_every_trainer
from helpers.small import QUICK
from tlrun.cli.main import main
from tlrun.config.saved import load_config
from tlrun.experiment.compare import compare_runs
from tlrun.experiment.reproduce import folder_beside
from tlrun.run_folder.run_dir import RunDir, runs_in

EXACT = "reproduced: metrics and weights are equal, bit for bit"
SHORT = [word for word in QUICK if word != "backbone.width=0.1"]
FAMILIES = {
    "finetune": ["method=finetune", "target_labels=5", "terms=[l2_sp,lwf]", "select=last"],
    "shot": ["method=shot"],
    "adda": ["method=adda"],
    "self_ensembling": ["method=self_ensembling"],
    "fixmatch": ["method=fixmatch_da", "terms=[mcc]"],
    "dirt_t": ["method=dirt_t"],
    "simclr": ["method=simclr"],
    "domain_generalisation": ["method=mixstyle", "data=digits_styles_digitsm"],
    "open_set": ["method=osbp", "data.label_spaces=open", "data.source_classes=[0,1,2,3,4]"],
    "multitask": ["experiment=bundled/multitask"],
    "multitask_balance": ["experiment=bundled/multitask", "balance=famo"],
    "progressive": ["experiment=bundled/progressive"],
    "zero_shot": ["method=eszsl", "data=digits_attributes", "backbone=dann_cnn"],
    "protonet": ["experiment=bundled/protonet"],
    "maml": ["experiment=bundled/maml"],
    "two_processes": ["method=dann", "trainer.devices=2"],
    "accumulated_bf16": ["method=dann", "trainer.accumulate=2", "trainer.precision=bf16"],
}
FEW = {
    "protonet": ["data.tests=[[5,1]]", "data.test_episodes=20", "data.val_episodes=5"],
    "maml": ["data.test_episodes=20", "data.val_episodes=5"],
}
QUICK_ONES = ("shot", "finetune", "zero_shot")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, in_tmp: Path) -> None:
    """Without plots and page."""
    monkeypatch.setattr("tlrun.experiment.lifecycle.show", lambda run_dir: None)


def train(name: str, *words: str) -> RunDir:
    narrow = [] if any("protonet" in word for word in words) else ["backbone.width=0.1"]
    assert main([*words, *SHORT, *narrow, f"hydra.run.dir={name}"]) == 0
    return RunDir(name)


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=() if name in QUICK_ONES else pytest.mark.slow) for name in FAMILIES],
)
def test_a_family(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    train("run", *FAMILIES[family], *FEW.get(family, ()))
    assert main(["reproduce", "run"]) == 0
    assert EXACT in capsys.readouterr().out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reproduce")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("tlrun.experiment.lifecycle.show", lambda run_dir: None)
        train("run", "method=source_only", "trainer.steps=3")
    return folder / "run"


@pytest.fixture
def run(trained: Path, in_tmp: Path) -> RunDir:
    shutil.copytree(trained, "run")
    return RunDir("run")


def change(file: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    found = json.loads(file.read_text())
    edit(found)
    file.write_text(json.dumps(found))


# ---- what it says ------------------------------------------------------------------------------


def test_other_versions_code_and_commits_are_told_though_all_is_equal(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    def edit(found: dict[str, Any]) -> None:
        found["versions"]["numpy"] = "1.0"
        found["code"]["tlrun"]["tlrun/methods"] = "abc"
        found["code"]["own"] = {"mine.py": "abc"}
        found["git"]["tlrun"] = {"sha": "0123456789abcdef", "dirty": True, "diff": "f"}

    change(run.environment, edit)
    assert main(["reproduce", "run"]) == 0
    said = capsys.readouterr().out
    assert "note: versions: numpy: 1.0 -> " in said
    assert "note: code: tlrun/methods: abc -> " in said
    assert "note: code: mine.py: abc -> none" in said
    assert "note: git: tlrun: commit 0123456789ab with uncommitted changes -> " in said
    assert EXACT in said
    assert str(Path("run_reproduced").absolute()) in said


def test_a_dry_run_is_nothing_to_compare(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "run", "dry_run=true"]) == 2
    assert "reproduce trains all of it again: dry_run=false" in capsys.readouterr().err
    assert not Path("run_reproduced").exists()


def test_terms_are_typed_over_a_saved_config(run: RunDir) -> None:
    cfg = load_config(run.config, ["terms=[mcc]"])
    assert list(cfg.terms) == ["mcc"]


def test_a_dirty_tree_is_told(run: RunDir) -> None:
    shutil.copytree("run", "again")

    def dirty(diff: str) -> Callable[[dict[str, Any]], None]:
        state = {"sha": "0123456789abcdef", "dirty": True, "diff": diff}
        return lambda found: found["git"].update(tlrun=state, working_folder=state)

    change(run.environment, dirty("a"))
    change(Path("again/environment.json"), dirty("a"))
    both = ["git: tlrun: both of commit 0123456789ab with uncommitted changes"]
    assert compare_runs(run, RunDir("again")).notes == both
    change(Path("again/environment.json"), dirty("b"))
    (note,) = compare_runs(run, RunDir("again")).notes
    assert "the uncommitted changes are others" in note


def test_what_the_environment_holds(run: RunDir) -> None:
    found = run.read_json(run.environment)
    assert {"tlrun", "tlrun/methods", "tlrun/engine", "conf/data"} <= found["code"]["tlrun"].keys()
    assert found["threads"] == 1
    assert found["device"] == "cpu"
    assert found["cpu"]["capability"]
    assert {"torch", "numpy", "tlrun"} <= found["versions"].keys()
    splits = found["data"]["domains"]["source"]["splits"]
    assert len(splits["train"]["checksum"]) == 64


def test_an_edited_config_is_told(run: RunDir) -> None:
    assert not [line for line in compare_runs(run, run).notes if "edited" in line]
    run.config.write_text(run.config.read_text().replace("seed: 0", "seed: 1"))
    told = "note: config.yaml is not the one that summary.json is of: edited since?"
    assert told in compare_runs(run, run).lines()


def test_a_run_of_an_older_tlrun_can_be_compared(run: RunDir) -> None:
    shutil.copytree("run", "again")

    def older(found: dict[str, Any]) -> None:
        for key in ("code", "threads", "device"):
            del found[key]
        del found["cpu"]["capability"]

    change(run.environment, older)
    found = compare_runs(run, RunDir("again"))
    assert found.exact
    assert not found.machine
    assert "code: the run does not tell, it was trained with an older tlrun" in found.notes


def test_modules_of_ones_own_are_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    package = "tlrun.methods.fine_tuning.source_only"
    source = f"from {package} import SourceOnly\n\nclass Mine(SourceOnly):\n    pass\n"
    Path("my_reproduced.py").write_text(source)
    Path("conf/method").mkdir(parents=True)
    Path("conf/method/mine.yaml").write_text("_target_: my_reproduced.Mine\n")
    run = train("run", "--config-dir", "conf", "method=mine", "trainer.steps=2")
    assert list(run.read_json(run.environment)["code"]["own"]) == ["my_reproduced.py"]
    Path("my_reproduced.py").write_text(source + "# a remark\n")
    assert main(["reproduce", "run"]) == 2
    assert "--trust my_reproduced" in capsys.readouterr().err
    assert main(["reproduce", "run", "--trust", "my_reproduced"]) == 0
    assert "note: code: my_reproduced.py: " in capsys.readouterr().out


# ---- another machine ---------------------------------------------------------------------------


@pytest.fixture
def elsewhere(run: RunDir) -> tuple[RunDir, RunDir]:
    """The run, and itself with other last digits, as another processor would leave it."""
    shutil.copytree("run", "again")
    again = RunDir("again")
    rows = again.read_metrics()
    again.metrics.write_text("")
    for row in rows:
        again.append_metrics({k: v * 1.0001 if k.endswith("loss") else v for k, v in row.items()})
    return run, again


def other_cpu(found: dict[str, Any]) -> None:
    found["cpu"]["model"] = "another"


def test_on_the_same_machine_the_last_digit_counts(elsewhere: tuple[RunDir, RunDir]) -> None:
    found = compare_runs(*elsewhere)
    assert not found.equal
    assert found.tolerance is None
    assert found.lines()[-1] == "differs"
    assert compare_runs(*elsewhere, tolerance=0.05).equal
    assert not compare_runs(*elsewhere, tolerance=0.0).equal


def test_on_another_machine_closing_figures_are_compared(
    elsewhere: tuple[RunDir, RunDir],
) -> None:
    old, new = elsewhere
    change(new.environment, other_cpu)
    found = compare_runs(old, new)
    assert found.equal
    assert not found.exact
    assert "within the tolerance of another machine (cpu.model: " in found.verdict()

    def worse(summary: dict[str, Any]) -> None:
        summary["selected"]["target_test/accuracy"] += 0.1

    change(new.summary, worse)
    found = compare_runs(old, new)
    assert not found.equal
    assert any("selected target_test/accuracy" in line for line in found.lines())
    assert compare_runs(old, new, tolerance=0.2).equal


def test_other_initial_weights_are_found_before_any_training(
    elsewhere: tuple[RunDir, RunDir],
) -> None:
    old, new = elsewhere
    change(new.environment, other_cpu)
    rows = new.read_metrics()
    new.metrics.write_text("")
    for row in rows:
        more = {"source_val/loss": row["source_val/loss"] * 1.01} if row["step"] == 0 else {}
        new.append_metrics({**row, **more})
    found = compare_runs(old, new)
    assert not found.equal
    (line,) = found.beyond
    assert line.startswith("figures: before training, source_val/loss: ")


def test_other_data_are_another_experiment_on_any_machine(
    elsewhere: tuple[RunDir, RunDir],
) -> None:
    old, new = elsewhere

    def edit(found: dict[str, Any]) -> None:
        other_cpu(found)
        found["data"]["domains"]["source"]["root"] = "elsewhere"  # no difference
        found["data"]["domains"]["source"]["splits"]["train"]["checksum"] = "abc"

    change(new.environment, edit)
    found = compare_runs(old, new)
    assert not found.equal
    (line,) = found.settings
    assert line.startswith("data: domains.source.splits.train.checksum: ")


def test_a_tolerance_is_a_share(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "run", "--tolerance", "2"]) == 2
    assert "--tolerance 2: give a share" in capsys.readouterr().err
    assert not Path("run_reproduced").exists()


# ---- runs with a past --------------------------------------------------------------------------


def test_a_run_that_starts_from_another(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    tuned = train(
        "tuned", "method=finetune", "target_labels=5", f"init={run.path}", "trainer.steps=2"
    )
    origin = tuned.read_json(tuned.environment)["init"]
    assert origin["run"] == str(run.path.absolute())
    assert len(origin["sha256"]) == 64
    assert main(["reproduce", "tuned"]) == 0
    assert EXACT in capsys.readouterr().out
    change(tuned.environment, lambda found: found["init"].update(sha256="of other weights"))
    assert any("init: sha256" in n for n in compare_runs(tuned, RunDir("tuned_reproduced")).notes)


def test_a_resumed_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    in_every_trainer(monkeypatch, crash_at_call(5, RuntimeError("power cut")))
    words = [*QUICK, "method=dann", "hydra.run.dir=run"]
    assert main(words) == 1
    run = RunDir("run")
    change(run.environment, lambda found: found["versions"].update(numpy="1.0"))
    assert main(["resume", "run"]) == 0
    assert run.read_json(run.environment)["earlier"][0]["versions"]["numpy"] == "1.0"
    assert main(["reproduce", "run"]) == 0
    said = capsys.readouterr().out
    assert (
        "note: the run was trained in parts: before it was resumed, with versions.numpy: 1.0"
        in said
    )
    assert EXACT in said


def test_a_baseline_is_taken_out_of_its_run(tmp_path: Path) -> None:
    def placed(path: str) -> str:
        return str(folder_beside(RunDir(tmp_path / path)).relative_to(tmp_path))

    for path in ("run", "run/baseline", "sweep/job", "sweep/job/baseline/dog"):
        RunDir.create(tmp_path / path).config.touch()
    (tmp_path / "sweep/sweep.yaml").touch()
    assert placed("run") == "run_reproduced"
    assert placed("run/baseline") == "run_baseline_reproduced"
    assert placed("sweep/job") == "sweep_reproduced/job"
    assert placed("sweep/job/baseline/dog") == "sweep_reproduced/job_baseline_dog"
    shutil.copytree(tmp_path / "run/baseline", tmp_path / "baseline")
    assert placed("baseline") == "baseline_reproduced"


def test_a_job_and_a_whole_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", *QUICK, "trainer.steps=2", "method=source_only", "hydra.sweep.dir=sweep"]
    assert main([*words, "seed=0,1"]) == 0
    jobs = runs_in("sweep")
    assert main(["reproduce", str(jobs[0])]) == 0
    assert EXACT in capsys.readouterr().out
    assert runs_in("sweep") == jobs  # the leaderboard counts what lies there
    assert [job.name for job in runs_in("sweep_reproduced")] == [jobs[0].name]
    RunDir(jobs[1]).set_status("interrupted")
    assert main(["reproduce", "sweep"]) == 0
    assert "reproduced: 1 exactly, 1 left out (not complete)" in capsys.readouterr().out
    assert len(runs_in("sweep_reproduced")) == 2
    RunDir(jobs[0]).set_status("interrupted")
    assert main(["reproduce", "sweep"]) == 2
    assert "no job of" in capsys.readouterr().err
