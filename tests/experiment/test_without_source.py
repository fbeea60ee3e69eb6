"""Fine-tuning without a source, through whole runs: what starts it, what chooses, what is left."""

import json

import pytest

from helpers import small
from helpers.data_files import write_image
from tlrun.config.compose import compose
from tlrun.errors import ConfigError
from tlrun.experiment.auto import resolve_auto
from tlrun.experiment.evaluate import evaluate
from tlrun.experiment.start import create_run_folder, run_experiment
from tlrun.inference.predict import load
from tlrun.report.pages.terminal import text_summary

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Nobody writes to it."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    for c, name in enumerate(CLASSES):
        for i in range(20):
            write_image(folder / name / f"{i}.png", 100 * c + i)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory, photos):
    """A run from scratch, to begin others with."""
    words = alone(photos, "init=scratch", "trainer.steps=2", "report=none")
    return run(tmp_path_factory.mktemp("start") / "run", words)


def alone(photos, *overrides, method="finetune"):
    data = ("data=folder", f"data.target.root={photos}", "data.size=16")
    return [*small.QUICK, f"method={method}", *data, *overrides]


def run(folder, words):
    run_dir = create_run_folder(compose(words), folder, words)
    run_experiment(run_dir)
    return run_dir


def resolved(photos, *overrides, **more):
    return resolve_auto(compose(alone(photos, *overrides, **more)))


def test_a_run_leaves_figures_of_the_target_alone(tmp_path, photos):
    run_dir = run(tmp_path / "run", alone(photos, "init=scratch"))
    summary = json.loads(run_dir.summary.read_text())
    assert summary["selection_rule"] == "target_accuracy"
    assert summary["selection_saw_target_labels"]
    assert summary["target_labels_seen"] == 48  # of 60, less a fifth for the test
    assert not [key for key in summary["selected"] if key.startswith("source")]
    assert set(summary["selected"]["target_test/accuracy_by_class"]) == set(CLASSES)
    assert set(summary["chance"]) == {"target_val/accuracy"}
    assert not (run_dir.path / "baseline").exists()
    assert run_dir.report.exists()
    assert "source test" not in text_summary(run_dir.path)
    model = load(run_dir.path)
    assert model.predict_files([photos / "ant" / "0.png"])[0].label in CLASSES


@pytest.mark.parametrize("method", ["lp_ft", "gradual_unfreeze", "lora", "wise_ft", "target_only"])
def test_methods_that_need_no_source(method, tmp_path, photos, start):
    init = () if method == "target_only" else (f"init={start.path}",)
    few = ("target_labels=2", "trainer.steps=2", "report=none")
    words = alone(photos, *init, *few, method=method)
    summary = json.loads(run(tmp_path / "run", words).summary.read_text())
    assert summary["selection_rule"] == "last"  # two labels a class: none to validate with
    assert summary["target_labels_seen"] == 6
    assert summary["selected"]["target_test/accuracy"] is not None


@pytest.mark.parametrize(
    "term", ["l2_sp", "delta", "bss", "co_tuning", "lwf", "stoch_norm", "bi_tuning"]
)
def test_terms_that_need_no_source(term, tmp_path, photos, start):
    few = ("trainer.steps=2", "report=none")
    words = alone(photos, f"init={start.path}", f"terms=[{term}]", *few)
    assert run(tmp_path / "run", words).summary.is_file()


@pytest.mark.parametrize("method", ["dann", "source_only", "mme", "tent"])
def test_others_name_what_they_lack(method, tmp_path, photos):
    needs = (
        rf"method={method} needs a labelled source: set data\..*: method=finetune init=pretrained$"
    )
    with pytest.raises(ConfigError, match=needs):
        run(tmp_path / "run", alone(photos, method=method))


def test_the_start_has_to_be_said(tmp_path, photos):
    with pytest.raises(ConfigError, match=r"learns on a source first, .* init=pretrained"):
        run(tmp_path / "run", alone(photos))


def test_weights_of_the_backbone_are_a_start(photos):
    words = alone(photos, "backbone=resnet18", "backbone.weights=DEFAULT")
    words.remove("backbone.width=0.1")
    assert resolve_auto(compose(words)).init == "pretrained"
    assert resolved(photos).init == "auto"
    assert resolved(photos, "init=scratch").init == "scratch"


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ((), "target_accuracy"),
        (("target_labels=5",), "last"),
        (("target_labels=5", "target_val_labels=all"), "target_accuracy"),
        (("target_val_labels=none",), "last"),
        (("select=bnm",), "bnm"),
        (("select=last",), "last"),
    ],
)
def test_what_chooses(words, rule, photos):
    assert resolved(photos, *words).select.name == rule


@pytest.mark.parametrize("rule", ["source_accuracy", "iwcv", "dev", "reverse_validation"])
def test_a_rule_that_reads_the_source_is_refused(rule, photos):
    with pytest.raises(ConfigError, match=f"select={rule} looks at source images"):
        resolved(photos, f"select={rule}")


def test_a_baseline_is_refused(tmp_path, photos):
    with pytest.raises(ConfigError, match="no baseline"):
        run(tmp_path / "run", alone(photos, "init=scratch", "baseline=true"))


def test_a_run_is_tested_on_all_of_another_folder(tmp_path, photos, capsys):
    few = ("trainer.steps=2", "report=none")
    words = alone(photos, f"data.source.root={photos}", *few, method="source_only")
    run_dir = run(tmp_path / "run", words)
    for i in range(7):
        write_image(tmp_path / "new" / "bee" / f"{i}.png", 500 + i)
    for i in range(3):
        write_image(tmp_path / "new" / "cat" / f"{i}.png", 600 + i)
    capsys.readouterr()
    new = f"data.target.root={tmp_path / 'new'}"
    result = evaluate(run_dir.path, ["data=folder", new])
    assert result["examples"] == {
        "target_test": {"count": 10, "count_by_class": {"ant": 0, "bee": 7, "cat": 3}}
    }
    printed = capsys.readouterr().out
    assert "10 examples" in printed
    assert [line for line in printed.splitlines() if "bee" in line and line.endswith("of 7")]
    assert "ant" not in printed.partition("accuracy_by_class")[2].partition("written")[0]
    with_source = evaluate(run_dir.path, [new])  # the source is as it was: its cut test part
    assert {role: n["count"] for role, n in with_source["examples"].items()} == {
        "source_test": 12,
        "target_test": 10,
    }
    again = evaluate(run_dir.path, [])
    assert again["examples"]["target_test"]["count"] == 12
    typed = evaluate(run_dir.path, [new, "data.target.transductive=false"])
    assert typed["examples"]["target_test"]["count"] == 2


def test_a_folder_without_labels_has_no_figures(tmp_path, photos, capsys):
    words = alone(photos, "init=scratch", "trainer.steps=2", "report=none")
    run_dir = run(tmp_path / "run", words)
    for i in range(4):
        write_image(tmp_path / "flat" / f"{i}.png", 500 + i)
    result = evaluate(run_dir.path, [f"data.target.root={tmp_path / 'flat'}"])
    assert result["examples"]["target_test"] == {"count": 4, "count_by_class": None}
    assert "4 examples, without labels: no figures" in capsys.readouterr().out
