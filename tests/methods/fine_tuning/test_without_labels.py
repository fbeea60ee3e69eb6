"""A start without labels from a flat folder: a labelled target, one without labels, and what is
impossible."""

import json
import logging

import pytest
import torch

from helpers import small
from helpers.data_files import write_image
from tlrun.config.compose import compose
from tlrun.data.prepare import main as prepare
from tlrun.errors import ConfigError, DataError
from tlrun.experiment.evaluate import evaluate
from tlrun.experiment.start import create_run_folder, run_experiment
from tlrun.inference.predict import load

METHODS = pytest.mark.parametrize("method", ["simclr", "rotation"])
OWN = (*small.QUICK, "data=folder", "data.size=16", "trainer.workers=0", "report=none")


@pytest.fixture
def pictures(tmp_path):
    """Folders of tiny pictures: two flat ones, and one of the classes a and b."""
    for i in range(24):
        write_image(tmp_path / "flat" / f"{i}.png", i)
        write_image(tmp_path / "other" / f"{i}.png", 100 + i)
        write_image(tmp_path / "labelled" / "ab"[i % 2] / f"{i}.png", 200 + i)
    return tmp_path


def run(folder, *words):
    words = [*OWN, *words]
    run_dir = create_run_folder(compose(words), folder, words)
    run_experiment(run_dir)
    return run_dir


def words_of(pictures, method, target, *words):
    root = [f"data.source.root={pictures / 'flat'}", f"data.target.root={pictures / target}"]
    return [f"method={method}", "select=last", *root, *words]


@METHODS
def test_a_flat_source_and_a_labelled_target(method, pictures):
    run_dir = run(pictures / "run", *words_of(pictures, method, "labelled"))
    summary = json.loads(run_dir.summary.read_text())
    assert summary["target_labels_seen"] > 0
    assert 0 <= summary["selected"]["target_test/accuracy"] <= 1
    assert load(run_dir.path).classes == ("a", "b")
    few = run(pictures / "few", *words_of(pictures, method, "labelled", "target_labels=2"))
    assert json.loads(few.summary.read_text())["target_labels_seen"] == 4


@METHODS
def test_both_without_labels_and_a_labelled_test(method, pictures):
    test = f"data.target.test.root={pictures / 'labelled'}"
    run_dir = run(pictures / "run", *words_of(pictures, method, "other", test))
    summary = json.loads(run_dir.summary.read_text())
    assert summary["target_labels_seen"] == 0
    assert summary["headline"] == "target_test/clustering_accuracy"
    assert 0.5 <= summary["selected"]["target_test/clustering_accuracy"] <= 1
    assert 0 <= summary["selected"]["target_test/nmi"] <= 1
    assert "oracle target test clustering" in (run_dir.path / "run.log").read_text()
    again = evaluate(run_dir.path)
    assert again["target_test/nmi"] == summary["selected"]["target_test/nmi"]


def test_no_label_anywhere_leaves_features_and_a_start(pictures, caplog):
    with caplog.at_level(logging.INFO, logger="tlrun"):
        run_dir = run(pictures / "run", *words_of(pictures, "simclr", "other"))
    assert "its features are not scored" in caplog.text
    assert "source step 0: no labels to judge by" in caplog.text
    summary = json.loads(run_dir.summary.read_text())
    assert {key for key in summary["selected"] if "accuracy" in key} == set()
    assert run_dir.features.is_file()
    with pytest.raises(ConfigError, match="knows no classes"):
        load(run_dir.path)(torch.zeros(1, 3, 16, 16))
    words = ["method=finetune", f"init={run_dir.path}", "transfer.freeze=[backbone]", "select=last"]
    tuned = run(pictures / "tuned", *words, f"data.target.root={pictures / 'labelled'}")
    first, then = (load(r.path).net["backbone"].state_dict() for r in (run_dir, tuned))
    assert all(torch.equal(first[key], then[key]) for key in first)


def test_withheld_labels_of_a_bundled_pair_score_its_features(tmp_path):
    session = small.session(tmp_path, "method=simclr", "target_labels=none")
    assert [phase.name for phase in session.phases] == ["source"]
    assert session.data.classes == ()
    assert session.data.role("target_train").labels is None
    session.build_all()
    assert set(session.test()[0]) == {
        f"{domain}_test/{key}"
        for domain in ("source", "target")
        for key in ("clustering_accuracy", "nmi")
    }


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["method=source_only"], DataError, "has no labels.*method=simclr or method=rotation"),
        (["method=finetune", "target_labels=none"], ConfigError, "target_labels=none withholds"),
        (["method=simclr", "target_labels=none", "init=scratch"], ConfigError, "nothing is left"),
        (["method=simclr", "data.label_spaces=open"], ConfigError, "no label of the source"),
        (["method=simclr", "target_labels=3"], ConfigError, "has no labels; use target_labels=non"),
    ],
)
def test_what_remains_impossible_is_said(words, error, message, pictures):
    roots = words_of(pictures, "simclr", "other")[2:]
    with pytest.raises(error, match=message):
        small.session(pictures / "run", *OWN, *roots, *words)


def test_several_sources_need_labels(tmp_path):
    words = ("data=digits_styles_digitsm", "method=simclr", "target_labels=none")
    with pytest.raises(ConfigError, match="trains on target labels"):
        small.session(tmp_path / "run", *words)


def test_a_flat_source_can_be_prepared(pictures):
    roots = [f"data.{d}.root={pictures / f}" for d, f in (("source", "flat"), ("target", "other"))]
    data = prepare(compose([*OWN, "method=simclr", *roots]))
    assert [len(data.role(f"{domain}_train")) for domain in ("source", "target")] == [22, 22]
