"""What a complete run leaves, and every verb on it, through the real command."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

import tlrun
from helpers.html_page import Page
from helpers.small import QUICK
from tlrun.cli.main import main
from tlrun.config.compose import compose
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.engine import checkpoint
from tlrun.errors import ConfigError
from tlrun.run_folder.run_dir import RunDir, runs_in

WORDS = (
    *QUICK,
    "trainer.steps=60",
    "schedule=constant",  # as few steps as this teach something all the same
    "trainer.eval_every=30",
    "optimizer.lr=0.01",
    "select.source_floor=0",
    "select.min_effective_classes=0",
)
RULE = "information_maximization"


@dataclass
class Trained:
    run: RunDir
    files: set[str]  # right after the run, but for plots
    plots: set[str]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A short DANN run on the bundled digits, with the source-only model beside it."""
    folder = tmp_path_factory.mktemp("verbs")
    words = [*WORDS, "method=dann", "baseline=true", "selectors=[last]", "hydra.run.dir=run"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(words) == 0
    run = RunDir(folder / "run")
    found = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}
    plots = {name for name in found if name.startswith("plots/")}
    own = {name for name in found - plots if not name.startswith("baseline/")}
    return Trained(run, own, plots)


@pytest.fixture
def copy(trained: Trained, in_tmp: Path) -> RunDir:
    """The same run in ./run, to be written to."""
    shutil.copytree(trained.run.path, in_tmp / "run")
    return RunDir(Path("run"))


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without plots and page: seconds saved, and `trained` shows that they are made."""
    monkeypatch.setattr("tlrun.experiment.lifecycle.show", lambda run_dir: None)


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def stamp(run: RunDir) -> dict[str, tuple[int, int]]:
    """Size and time of every file."""
    return {
        str(p.relative_to(run.path)): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in run.path.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


# ---- the run folder ---------------------------------------------------------------------------


def test_the_run_folder_is_the_designs(trained: Trained) -> None:
    assert trained.files == {
        "config.yaml",
        "overrides.yaml",
        "environment.json",
        "label_space.json",
        "status.json",
        "run.log",
        "metrics.jsonl",
        "summary.json",
        "model.safetensors",
        "predictions.csv",
        "features.npz",
        "images.json",
        "report.html",
        ".lock",
        *(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")),
        *(
            f"checkpoints/{name}.{end}"
            for name in ("last", "previous", RULE)
            for end in ("pt", "json")
        ),
    }
    assert {"plots/curves.png", "plots/confusion.png", "plots/embedding.png"} <= trained.plots
    assert all(name.endswith(".png") for name in trained.plots)


def test_the_config_is_resolved_and_self_contained(trained: Trained) -> None:
    text = trained.run.config.read_text()
    cfg = OmegaConf.load(trained.run.config)
    assert "${" not in text
    assert "auto" not in (cfg.trainer.threads, cfg.trainer.precision, cfg.baseline)
    assert "method=dann" in OmegaConf.load(trained.run.overrides)


def test_the_sidecar_of_a_checkpoint(trained: Trained) -> None:
    about = RunDir.read_json(trained.run.checkpoints / f"{RULE}.json")
    summary = RunDir.read_json(trained.run.summary)
    assert about["step"] == summary["selected"]["step"]
    assert about["metric"] == RULE
    assert len(about["sha256"]) == 64
    rows = [r for r in trained.run.read_metrics() if r["split"] == "eval"]
    assert about["value"] == max(r[f"validator/{RULE}"] for r in rows)


def test_the_rows_of_the_metrics(trained: Trained) -> None:
    rows = trained.run.read_metrics()
    for row in rows:
        assert {"step", "phase", "split", "time"} <= row.keys()
        if row["split"] == "train":
            assert {"loss/classification", "loss/domain", "lr"} <= row.keys()
        else:
            assert {"source_val/accuracy", "oracle/target_test_accuracy"} <= row.keys()
    assert [r["step"] for r in rows if r["split"] == "eval"] == [0, 30, 60]


def test_the_stable_keys_of_the_summary(trained: Trained) -> None:
    summary = RunDir.read_json(trained.run.summary)
    stable = (
        "schema status method data backbone seed steps updates images_seen config_hash "
        "target_labels_seen selection_rule selection_saw_target_labels selected last oracle "
        "train_seconds wall_seconds images_per_second peak_memory_mb"
    ).split()
    assert set(stable) <= summary.keys()
    for key in ("selected", "last", "before"):
        for figure in ("accuracy", "balanced_accuracy", "macro_f1"):
            assert 0 <= summary[key][f"target_test/{figure}"] <= 1
            assert 0 <= summary[key][f"source_test/{figure}"] <= 1
    assert (summary["schema"], summary["status"], summary["steps"]) == (1, "completed", 60)
    assert summary["images_seen"] == 60 * 2 * 8


def test_the_baseline_is_the_before(trained: Trained) -> None:
    before = RunDir(trained.run.path / "baseline")
    inside = RunDir.read_json(before.summary)
    assert inside["method"] == "source_only"
    assert inside["steps"] == 60
    assert RunDir.read_json(trained.run.summary)["before"] == inside["selected"]
    assert before.read_status()["state"] == "completed"


def test_predictions(trained: Trained) -> None:
    rows = table(trained.run.predictions)
    assert list(rows[0]) == ["index", "path", "label", "prediction", "confidence"]
    right = sum(row["label"] == row["prediction"] for row in rows) / len(rows)
    summary = RunDir.read_json(trained.run.summary)
    assert right == pytest.approx(summary["selected"]["target_test/accuracy"])
    assert all(0.1 <= float(row["confidence"]) <= 1 for row in rows)


# ---- evaluate ---------------------------------------------------------------------------------


def test_evaluate_gives_the_summarys_figures_and_leaves_the_run(
    copy: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stamp(copy)
    assert main(["evaluate", "run"]) == 0
    assert "weights of step" in capsys.readouterr().out
    found = RunDir.read_json("run/evaluations/digits_digitsm.json")
    selected = RunDir.read_json(copy.summary)["selected"]
    assert {key: found[key] for key in selected} == selected
    after = stamp(copy)
    assert after.keys() - before.keys() == {"evaluations/digits_digitsm.json"}
    assert {key: after[key] for key in before} == before


def test_evaluate_with_another_normalisation(copy: RunDir) -> None:
    assert main(["evaluate", "run", "data.normalize=half"]) == 0
    (file,) = Path("run/evaluations").glob("digits_digitsm_*.json")
    found = RunDir.read_json(file)
    selected = RunDir.read_json(copy.summary)["selected"]
    assert found["overrides"] == ["data.normalize=half"]
    assert found["target_test/accuracy_by_class"] != selected["target_test/accuracy_by_class"]


def test_evaluate_by_a_rule_that_kept_nothing(
    copy: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "run", "select=last"]) == 0
    assert "weights of step 60 (select=last)" in capsys.readouterr().out
    assert main(["evaluate", "run", "select=snd"]) == 2
    said = capsys.readouterr().err
    assert f"it kept {RULE}, last" in said
    assert "train with selectors=[snd]" in said
    (copy.checkpoints / f"{RULE}.pt").unlink()  # the run's own rule chose nothing: the last step
    assert main(["evaluate", "run"]) == 0
    assert "weights of step 60" in capsys.readouterr().out


def test_evaluate_on_a_net_that_does_not_fit(
    copy: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "run", "data.size=32"]) == 2
    assert "the weights do not fit the net of this config" in capsys.readouterr().err


@pytest.fixture
def digit_images(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundled target test images as files, a folder per class."""
    monkeypatch.setenv("TLRUN_CACHE", str(in_tmp / "cache"))
    test = build_data(compose().data, Options(seed=0)).role("target_test")
    assert test is not None
    assert test.labels is not None
    folder = in_tmp / "digits"
    images = test.read(torch.arange(len(test))).permute(0, 2, 3, 1).numpy()
    for i, (image, label) in enumerate(zip(images, test.labels.tolist(), strict=True)):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / str(label) / f"{i:04d}.png")
    return folder


def test_evaluate_on_other_data_keeps_size_and_normalisation(
    copy: RunDir, digit_images: Path
) -> None:
    """Folder data are 64x64 and `half` by default; this net was trained on 28x28 and `instance`."""
    words = ["data=folder", "data.source.root=digits", "data.target.root=digits"]
    words += ["data.source.transductive=true", "data.target.transductive=true"]
    assert main(["evaluate", "run", *words]) == 0
    (first,) = Path("run/evaluations").glob("folder_*.json")
    found = RunDir.read_json(first)
    selected = RunDir.read_json(copy.summary)["selected"]
    for key in ("target_test/accuracy", "target_test/accuracy_by_class", "target_test/macro_f1"):
        assert found[key] == pytest.approx(selected[key])
    assert main(["evaluate", "run", *words, "data.normalize=half"]) == 0
    (second,) = set(Path("run/evaluations").glob("folder_*.json")) - {first}
    typed = RunDir.read_json(second)
    assert RunDir.read_json(first) == found  # an earlier result is not lost
    assert typed["target_test/accuracy_by_class"] != selected["target_test/accuracy_by_class"]


def test_evaluate_on_some_of_the_classes_and_on_further_ones(
    copy: RunDir, digit_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels are matched by name: without the class 0 a 1 is still a 1."""
    expected = [row for row in table(copy.predictions) if row["label"] != "0"]
    right = sum(row["label"] == row["prediction"] for row in expected) / len(expected)
    shutil.rmtree(digit_images / "0")
    words = ["data=folder", "data.source.root=digits", "data.target.root=digits"]
    words += ["data.source.transductive=true", "data.target.transductive=true"]
    assert main(["evaluate", "run", *words]) == 0
    (path,) = Path("run/evaluations").glob("folder_*.json")
    found = RunDir.read_json(path)["target_test/accuracy"]
    assert found == pytest.approx(right)
    (digit_images / "1").rename(digit_images / "ten")
    assert main(["evaluate", "run", *words]) == 2
    said = capsys.readouterr().err
    assert "a run and the data that it is evaluated on must have the same classes" in said
    assert "ten); rename or remove class folders or labels" in said


# ---- predict, load, export --------------------------------------------------------------------


def test_predict_says_what_the_run_predicted(
    copy: RunDir, digit_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = {row["index"]: row for row in table(copy.predictions)}
    one = next((digit_images / "3").iterdir())
    assert main(["predict", "run", str(one), "digits", "--output", "out/found.csv"]) == 0
    said = capsys.readouterr().out
    assert str(one) in said
    assert "written: out/found.csv" in said
    found = table(Path("out/found.csv"))
    assert len(found) == len(expected) + 1
    for row in found:
        was = expected[str(int(Path(row["path"]).stem))]
        assert row["label"] == was["prediction"]
        assert float(row["confidence"]) == pytest.approx(float(was["confidence"]), abs=1e-3)


def test_load_gives_a_module_with_its_preprocessing(trained: Trained) -> None:
    model = tlrun.load(trained.run.path)
    assert isinstance(model, nn.Module)
    assert not model.training
    test = build_data(compose().data, Options(seed=0)).role("target_test")
    assert test is not None
    with torch.no_grad():
        logits = model(test.read(torch.arange(len(test))))
    rows = table(trained.run.predictions)
    assert [model.classes[i] for i in logits.argmax(1).tolist()] == [r["prediction"] for r in rows]
    last = tlrun.load(trained.run.path, "last")
    state = checkpoint.load(trained.run.checkpoints / "last.pt")["parts"]["classifier"]
    assert all(torch.equal(last.net["classifier"].state_dict()[key], state[key]) for key in state)


def test_export(copy: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "run", "--to", "torch_export", "--output", "mine.pt2"]) == 0
    assert "mine.pt2: largest difference to the model" in capsys.readouterr().out
    program = torch.export.load("mine.pt2").module()
    x = torch.randint(256, (5, 3, 28, 28), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(program(x), tlrun.load("run")(x), rtol=1e-4, atol=1e-4)


# ---- report, resume, reproduce, list, prepare ---------------------------------------------------


def test_what_a_verb_cannot_do_is_said_before_the_work(
    copy: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(copy.path), "--to", "torch_export", "--output", "no/x.pt2"]) == 2
    assert "give a file in a folder that exists" in capsys.readouterr().err
    (copy.checkpoints / "last.pt").unlink()
    assert main(["reproduce", str(copy.path)]) == 2
    assert "no checkpoints/last.pt left" in capsys.readouterr().err
    copy.label_space.unlink()
    assert main(["evaluate", str(copy.path)]) == 2
    assert "no label_space.json" in capsys.readouterr().err
    assert main(["list", "--config-dir", "nope"]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_report_is_written_again(copy: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    copy.report.unlink()
    shutil.rmtree(copy.plots)
    assert main(["report", "run"]) == 0
    assert capsys.readouterr().out.strip() == "run/report.html"
    page = Page(copy.report)
    page.assert_self_contained()
    assert "dann on digits_digitsm" in page.text
    assert len(list(copy.plots.glob("*.png"))) >= 3


def test_resume_of_a_complete_run_does_nothing(
    copy: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    before = stamp(copy)
    assert main(["resume", "run"]) == 0
    assert "run is complete; nothing to resume" in caplog.text
    assert stamp(copy) == before


def test_longer_training_is_longer_for_the_baseline_too(copy: RunDir, plain: None) -> None:
    assert main(["resume", "run", "trainer.steps=64"]) == 0
    summary = RunDir.read_json(copy.summary)
    assert (summary["steps"], summary["resumed_with"]) == (64, ["trainer.steps=64"])
    baseline = RunDir.read_json("run/baseline/summary.json")
    assert baseline["steps"] == 64
    assert summary["before"] == baseline["selected"]


def test_reproduce_is_bit_equal_and_another_seed_is_not(
    copy: RunDir, plain: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "run"]) == 0
    said = capsys.readouterr().out
    assert "reproduced: metrics and weights are equal, bit for bit" in said
    assert RunDir("run_reproduced").read_status()["state"] == "completed"
    assert main(["reproduce", "run", "seed=7"]) == 1
    said = capsys.readouterr().out
    for part in ("config: seed: 0 -> 7", "metrics: step 0 ", "weights: backbone: ", "differs"):
        assert part in said


def test_list_names_what_the_package_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for part in ("dann ", "Ganin et al.", "mnist_mnistm", "licence:", "dann_cnn", "snd"):
        assert part in said
    assert main(["list", "backbones"]) == 0
    assert "licence:" not in capsys.readouterr().out


def test_prepare(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "data=digits_digitsm"]) == 0
    assert "target_test" in capsys.readouterr().out


def test_figures_of_the_summary_are_those_of_their_own_steps(in_tmp: Path, plain: None) -> None:
    """Autocast caches weights: selected and last must not be tested with the same ones."""
    words = [w for w in WORDS if not w.startswith(("trainer.precision", "trainer.steps"))]
    options = ["trainer.precision=bf16", "trainer.steps=12", "trainer.eval_every=2"]
    keep = ["select=source_accuracy", "select.min_effective_classes=0"]
    assert main([*words, *options, *keep, "hydra.run.dir=run"]) == 0
    run = RunDir("run")
    rows = {row["step"]: row for row in run.read_metrics() if row["split"] == "eval"}
    summary = run.read_json(run.summary)
    for which in ("selected", "last"):
        row = rows[summary[which]["step"]]
        assert summary[which]["target_test/accuracy"] == row["oracle/target_test_accuracy"]


def test_a_dry_run_spares_what_was_there(in_tmp: Path) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    assert main([*WORDS, "dry_run=true", "hydra.run.dir=mine"]) == 0
    assert [path.name for path in Path("mine").iterdir()] == ["thesis.tex"]
    Path("mine/thesis.tex").unlink()
    assert main([*WORDS, "dry_run=true", "hydra.run.dir=mine"]) == 0
    assert Path("mine").is_dir()
    assert not list(Path("mine").iterdir())


def test_a_dry_run_shows_the_net_and_leaves_nothing(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS, "dry_run=true", "hydra.run.dir=run"]) == 0
    said = capsys.readouterr().out
    for part in ("10 classes", "backbone.conv1", "domain_head.out", "total", "dry run"):
        assert part in said
    assert list(in_tmp.iterdir()) == []
    assert main([*WORDS, "dry_run=true"]) == 0  # the folder by day was made for it alone
    assert list(in_tmp.iterdir()) == []


def test_a_dry_run_finds_a_term_that_cannot_join(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS, "dry_run=true", "terms=[mcc]"]) == 0
    assert "mcc 0." in capsys.readouterr().out
    words = [*WORDS, "method=source_only", "dry_run=true", "terms=[mcc]"]
    assert main(words) == 2
    assert "terms=[mcc] needs target images" in capsys.readouterr().err
    assert main([*WORDS, "method=finetune", "dry_run=true", "terms=[ewc,l2_sp]"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method=mcd", "terms=[l2_sp]"], "needs weights that were carried over"),
        (["method.attach=1e30"], "expected a word"),
        (["method=adda", "terms=[vat]"], "nothing is trained in this phase"),
        (["method=dann", "transfer.freeze=[backbone.convX]"], "no part or stage matches"),
        (["method=shot", "method.hypothesis=classifier.nope"], "no part or stage matches"),
        (["method=dan", "trainer.batch_size=2", "trainer.accumulate=2"], "2 images of each"),
    ],
)
def test_a_dry_run_refuses_what_a_run_would_and_leaves_nothing(
    words: list[str], said: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS, *words, "dry_run=true", "hydra.run.dir=run"]) == 2
    assert said in capsys.readouterr().err
    assert list(in_tmp.iterdir()) == []


# ---- Python, sweeps, a method of one's own ------------------------------------------------------


def test_run_from_python(in_tmp: Path, plain: None) -> None:
    summary = tlrun.run([*WORDS, "method=source_only", "trainer.steps=3"])
    run = RunDir.open(summary["run_dir"])
    assert run.path.parent.parent == Path("outputs")
    assert RunDir.read_json(run.summary) == json.loads(
        json.dumps({k: v for k, v in summary.items() if k != "run_dir"})
    )
    assert isinstance(tlrun.load(summary["run_dir"]), nn.Module)


def test_a_sweep_of_two_methods_and_two_seeds(
    in_tmp: Path, plain: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["trainer.steps=4", "trainer.eval_every=2", "hydra.sweep.dir=sweep"]
    assert main(["-m", *QUICK, *words, "method=source_only,dann", "seed=0,1"]) == 0
    assert "4 of 4 jobs completed: sweep" in capsys.readouterr().err
    runs = [RunDir(path) for path in runs_in("sweep")]
    assert {run.read_status()["state"] for run in runs} == {"completed"}
    summaries = [RunDir.read_json(run.summary) for run in runs]
    assert {(s["method"], s["seed"]) for s in summaries} == {
        (method, seed) for method in ("source_only", "dann") for seed in (0, 1)
    }
    assert len({s["config_hash"] for s in summaries}) == 4
    rows = table(Path("sweep/leaderboard.csv"))
    assert {row["method"]: row["completed"] for row in rows} == {"dann": "2", "source_only": "2"}
    # four steps never leave chance, which a dagger says
    assert re.search(r"\| source_only†? \|", Path("sweep/leaderboard.md").read_text())
    Page(Path("sweep/report.html")).assert_self_contained()

    Path("sweep/leaderboard.csv").unlink()
    assert main(["report", "sweep"]) == 0
    assert Path("sweep/leaderboard.csv").exists()
    capsys.readouterr()
    assert main(["resume", "sweep"]) == 0
    assert capsys.readouterr().err.count("finished before") == 4


MINE = '''
from tlrun.methods.base import Method, Requirements, Update


class Mine(Method):
    """Supervised training on the source with a penalty on the logits."""

    requirements = Requirements(streams=("source",))

    def __init__(self, penalty: float = 0.01) -> None:
        self.penalty = penalty

    def build(self, phase, net, data):
        net.add("classifier", net.new_head(data.num_classes))

    def step(self, net, batch, phase, progress):
        from torch.nn.functional import cross_entropy

        out = net(batch["source"].x)
        loss = cross_entropy(out.logits, batch["source"].y)
        yield Update({"classification": loss, "penalty": self.penalty * out.logits.square().mean()})
'''


def test_a_method_outside_the_package(in_tmp: Path, plain: None) -> None:
    Path("own_methods.py").write_text(MINE)
    Path("my_conf/method").mkdir(parents=True)
    Path("my_conf/method/mine.yaml").write_text("_target_: own_methods.Mine\npenalty: 0.01\n")
    words = ["--config-dir", "my_conf", "method=mine", "method.penalty=0.5", "hydra.run.dir=run"]
    assert main([*QUICK, *words]) == 0
    row: dict[str, Any] = next(r for r in RunDir("run").read_metrics() if r["split"] == "train")
    assert row["loss/penalty"] > 0
    assert RunDir.read_json("run/summary.json")["method"] == "mine"
    with pytest.raises(ConfigError, match="--trust own_methods"):
        tlrun.load("run")
    assert isinstance(tlrun.load("run", trust=["own_methods"]), nn.Module)
    assert main(["evaluate", "run", "--config-dir", "my_conf"]) == 0


def test_no_evaluation_passes_the_guard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last step stands for the choice: console, run.log, summary, page, leaderboard say so."""
    monkeypatch.chdir(tmp_path)
    assert main([*QUICK, "trainer.steps=4", "trainer.eval_every=2",
                 "select.min_effective_classes=1", "hydra.run.dir=sweep/run"]) == 0  # fmt: skip
    run = RunDir(Path("sweep/run"))
    summary = RunDir.read_json(run.summary)
    assert summary["selected"]["step"] == summary["steps"] == 4
    assert summary["selection_fell_back"] is True
    why = summary["selection_why_last"]
    assert why.startswith(f"no evaluation of 2 passed the guard of {RULE}: 2 in too few")
    assert "where 10.0 of 10 are asked for" in why
    guard = {"num_classes": 10, "source_floor": 0.9, "min_effective_classes": 1.0}
    assert summary["selection_guard"] == guard
    said = capsys.readouterr()
    assert f"The last step, 4 of 4, stands for the choice of {RULE}: {why}." in said.out + said.err
    assert f"the last step is used: {why}" in (run.path / "run.log").read_text()
    assert "stands for the choice of" in run.report.read_text()
    assert main(["report", "sweep"]) == 0
    board = next(Path("sweep").glob("*.html")).read_text()
    assert "In 1 of 1 jobs no evaluation passed the guard against collapse" in board


def test_an_unfinished_run_has_not_chosen(copy: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    (copy.checkpoints / f"{RULE}.pt").unlink()
    assert main(["evaluate", "run"]) == 0
    assert f"training has not come to its end, where {RULE} chooses" in caplog.text
