"""Figures of episodes: the interval, the same episodes for all, no novel class before its time."""

import math

import pytest
import torch
from PIL import Image

from helpers import small
from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.errors import ConfigError, DataError
from tlrun.evaluate.evaluators.episode_figures import mean_and_interval
from tlrun.experiment.assemble import open_session
from tlrun.experiment.auto import resolve_auto
from tlrun.experiment.start import create_run_folder, run_experiment
from tlrun.experiment.summary import conclude
from tlrun.inference.predict import load
from tlrun.run_folder.run_dir import RunDir

SHORT = (
    "data=digits_episodes",
    "data.tests=[[5,1],[3,2]]",
    "data.query=4",
    "data.val_episodes=10",
    "data.test_episodes=25",
)


def test_the_interval_is_196_standard_errors():
    mean, interval = mean_and_interval(torch.tensor([0.2, 0.4, 0.9], dtype=torch.float64))
    assert mean == pytest.approx(0.5)
    assert interval == pytest.approx(1.96 * 0.3605551 / math.sqrt(3), rel=1e-5)


def test_figures_of_every_way_and_shot(tmp_path):
    session = small.session(tmp_path / "run", *SHORT)
    session.build_all()
    with torch.no_grad():
        figures, found = session.evaluator.test(session.net.eval())
        again, _ = session.evaluator.test(session.net)
        row = session.evaluator.row(session.net)
    assert figures == again
    assert found.keys() == {"5way_1shot", "3way_2shot"}
    assert all(len(accuracies) == 25 for accuracies in found.values())
    assert figures["target_test/accuracy"] == figures["few_shot/5way_1shot/accuracy"]
    assert row["validator/source_accuracy"] == row["source_val/accuracy"]
    assert row["oracle/target_test_accuracy"] is not None
    session.evaluator.write(session.run_dir, found)
    assert len((session.run_dir.path / "episodes.csv").read_text().splitlines()) == 51


def test_the_best_step_has_one_figure(tmp_path):
    """That of the closing test where there is one: an evaluation in training has fewer episodes."""
    session = small.session(tmp_path / "run", *small.QUICK, *SHORT, "trainer.steps=1")
    session.trainer().fit()
    summary = conclude(session)
    (row,) = (
        r
        for r in session.run_dir.read_metrics()
        if r.get("phase_step") == 1 and "oracle/target_test_accuracy" in r
    )
    assert summary["oracle"]["step"] == summary["selected"]["step"] == 1
    assert summary["oracle"]["target_test/accuracy"] == summary["selected"]["target_test/accuracy"]
    assert summary["oracle"]["target_test/accuracy"] != row["oracle/target_test_accuracy"]


def test_features_at_once_and_episode_by_episode_agree(tmp_path):
    session = small.session(tmp_path / "run", *SHORT)
    session.build_all()
    evaluator, shape = session.evaluator, session.data.tests[1]
    with torch.no_grad():
        at_once = evaluator.accuracies(session.net.eval(), "target_test", shape, 25)
        evaluator.by_features = False
        singly = evaluator.accuracies(session.net, "target_test", shape, 25)
    assert torch.equal(at_once, singly)


def test_no_novel_class_is_seen_with_the_target_test_off(tmp_path):
    session = small.session(tmp_path / "run", *SHORT, "evaluate.target_test=false")
    session.build_all()
    session.data.domains["target"].test = None  # to read it would fail
    with torch.no_grad():
        figures, found = session.evaluator.test(session.net.eval())
        row = session.evaluator.row(session.net)
    assert found == {}
    assert figures.keys() == {"source_val/accuracy", "source_val/ci95"}
    assert not any(key.startswith("oracle") for key in row)


def test_a_run_learns_new_classes_from_a_folder(tmp_path):
    overrides = [*small.QUICK, *SHORT, "trainer.eval_every=3"]
    summary = run_experiment(create_run_folder(compose(overrides), tmp_path / "run", overrides))
    assert summary["selected"]["few_shot/3way_2shot/ci95"] > 0
    assert summary["target_labels_seen"] == 0
    for name, shade in (("dark", 10), ("light", 240)):
        (tmp_path / "support" / name).mkdir(parents=True)
        for i in range(2):
            picture = Image.new("L", (28, 28), shade)
            picture.paste(255 - shade, (5 + i, 5, 15, 15))
            picture.save(tmp_path / "support" / name / f"{i}.png")
    model = load(tmp_path / "run")
    with pytest.raises(ConfigError, match="--support FOLDER"):
        model.predict_files([tmp_path / "support" / "dark" / "0.png"])
    model.learn(tmp_path / "support")
    files = sorted((tmp_path / "support").rglob("*.png"))
    assert [p.label for p in model.predict_files(files)] == ["dark"] * 2 + ["light"] * 2
    with pytest.raises(DataError, match="one folder per class"):
        model.learn(tmp_path / "support" / "dark")


def test_a_method_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="kind 'class'"):
        small.session(tmp_path / "run", *SHORT, "method=source_only")


@pytest.mark.parametrize("method", ["protonet", "maml"])
def test_a_run_that_was_cut_off_goes_on_as_if_nothing_had_happened(method, tmp_path):
    def session(name, stop_at=None):
        overrides = [*small.QUICK, *SHORT, "data.val_episodes=2", f"method={method}"]
        cfg = plain(resolve_auto(compose(overrides)))
        folder = tmp_path / name
        run_dir = RunDir.open(folder) if folder.exists() else RunDir.create(folder)
        run_dir.checkpoints.mkdir(exist_ok=True)
        run_dir.config.write_text("{}")
        opened = open_session(run_dir, cfg)
        step = opened.method.step

        def broken(net, batch, phase, progress):
            if progress.step == stop_at:
                raise KeyboardInterrupt
            return step(net, batch, phase, progress)

        opened.method.step = broken
        return opened

    straight = session("straight")
    straight.trainer().fit()
    with pytest.raises(KeyboardInterrupt):
        session("cut", stop_at=4).trainer().fit()
    resumed = session("cut")
    resumed.trainer().fit()
    for key, value in straight.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[key]), key
