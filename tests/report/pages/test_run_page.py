"""report.html of a run, and the text that tlrun prints at its end."""

import json
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from helpers.html_page import Page
from helpers.run_folders import make_run
from tlrun.errors import ConfigError
from tlrun.experiment.lifecycle import show
from tlrun.report.formats import number, plain
from tlrun.report.pages.terminal import text_summary
from tlrun.report.pages.write import write_report
from tlrun.report.statistics.significance import wilson
from tlrun.run_folder.run_dir import RunDir


@pytest.mark.usefixtures("no_map")
def test_whole_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", overrides=("method.trade_off=0.5",))
    path = write_report(run)
    assert path == run / "report.html"
    page = Page(path)
    page.assert_self_contained()
    assert page.tags.count("img") == 5
    for expected in (
        "55.0 % before, 93.0 % after adaptation",
        "+38.0 points",
        "Measured on 600 target test images",
        "The rule information_maximization selected step 1,800 of 2,000; it saw no target label.",
        "No target label was seen",
        "oracle",
        "method.trade_off=0.5",
        "tlrun reproduce",
        "CC BY-SA 3.0",
        "2,000 to 2,009",
        "20,000 of 60,000 training images",
        "torch: 2.15.0",
        "3 min 21 s",
        "lr: 1e-2",
        "switched off by the test",
        "What would each rule have chosen?",
        "reverse_validation",
    ):
        assert expected in page.text, expected
    assert page.text.index("93.0") < page.text.index("Curves") < page.text.index("Configuration")
    markup = re.sub(r"data:[^\"]*", "", page.source)  # letters of a picture may be any word
    assert "warn" not in markup.split("<body>")[1]


def test_a_light_page_leaves_the_slow_pictures_to_another_command(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    page = Page(write_report(run, kind="light"))
    drawn = {path.stem for path in (run / "plots").iterdir()}
    assert drawn == {"curves", "confusion", "by_class"}
    assert f"report=light; tlrun report {run} draws it" in page.text


def test_a_page_of_text_draws_nothing_and_names_the_command_that_does(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    page = Page(write_report(run, kind="text"))
    assert not (run / "plots").exists()
    assert f"report=text; tlrun report {run} draws it" in page.text
    write_report(run)
    assert (run / "plots" / "curves.png").is_file()


@pytest.mark.parametrize("kind", ["full", "light", "text", "none"])
def test_a_run_is_shown_as_its_configuration_says(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(make_run(tmp_path / "run"))
    config = OmegaConf.load(run.config)
    config.report = kind
    OmegaConf.save(config, run.config)
    asked = []

    def write(path: Path, *, kind: str) -> None:
        asked.append(kind)
        run.report.touch()
        if kind != "text":
            run.plots.mkdir()

    monkeypatch.setattr("tlrun.report.pages.write.write_report", write)
    show(run)
    assert asked == ([] if kind == "none" else [kind])
    assert run.report.name not in run.missing()


@pytest.mark.usefixtures("no_plots")
def test_class_names_and_errors_are_escaped(tmp_path: Path) -> None:
    names = ("<b>cat</b>", "<script>alert(1)</script>")
    run = make_run(tmp_path / "run", classes=names, state="interrupted", error="<i>stop</i> & go")
    page = Page(write_report(run))
    assert "<b>" not in page.source
    assert "<script" not in page.source
    assert "<script>alert(1)</script>" in page.text
    assert "<i>stop</i> & go" in page.text
    assert "interrupted" in page.text
    assert "tlrun resume" in page.text


@pytest.mark.usefixtures("no_plots")
def test_warnings_when_target_labels_were_seen(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", saw_labels=True)
    summary = json.loads((run / "summary.json").read_text()) | {"target_labels_seen": 1250}
    (run / "summary.json").write_text(json.dumps(summary))
    page = Page(write_report(run))
    assert "Selection saw target labels" in page.text
    assert "Training saw 1,250 target labels" in page.text
    assert "No target label was seen" not in page.text
    assert "Training saw 1,250 target labels." in text_summary(run)


@pytest.mark.usefixtures("no_plots")
def test_failed_run_without_summary(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", state="failed", error="The loss became NaN.", baseline=False)
    page = Page(write_report(run))
    assert "The run failed." in page.text
    assert "The loss became NaN." in page.text
    assert "no result" in page.text
    assert "tlrun resume" in page.text
    text = text_summary(run)
    assert "failed" in text
    assert "The loss became NaN." in text


@pytest.mark.usefixtures("no_plots")
def test_run_that_died_before_it_wrote_anything(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("")
    page = Page(write_report(tmp_path))
    assert "unknown on unknown" in page.text
    assert text_summary(tmp_path)


@pytest.mark.usefixtures("no_plots")
def test_target_without_labels(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", labelled=False, baseline=False)
    page = Page(write_report(run))
    assert "Target images labelled 600 How many" in " ".join(page.text.split())
    assert "How many of these labels are right is not known" in page.text
    assert "On source test images 99.1 % are right." in page.text
    assert "Target test accuracy was not measured" not in page.text
    text = text_summary(run)
    assert "not measured" in text
    assert "before" not in text.splitlines()[2]


@pytest.mark.usefixtures("no_map")
def test_what_was_predicted_where_nobody_knows(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", labelled=False, baseline=False, images=100)
    page = Page(write_report(run))
    assert (run / "plots" / "predicted.png").is_file()
    assert "What was predicted" in page.text
    assert "Confusion on the target" not in page.text  # not among what is left out either
    labelled = Page(write_report(make_run(tmp_path / "other", baseline=False, images=100)))
    assert "What was predicted" not in labelled.text
    assert labelled.text.index("Cost") < labelled.text.index("Could the validators be trusted?")


@pytest.mark.usefixtures("no_map")
def test_many_predicted_classes_are_bounded(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        classes=tuple(f"class {k}" for k in range(200)),
        labelled=False,
        baseline=False,
    )
    assert "What was predicted" in Page(write_report(run)).text


@pytest.mark.usefixtures("no_plots")
def test_further_figures_of_other_families_are_shown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    summary["selected"]["unseen/accuracy"] = 0.4321
    (run / "summary.json").write_text(json.dumps(summary))
    page = Page(write_report(run))
    assert "unseen/accuracy" in page.text
    assert "43.2" in page.text


def with_figures(run: Path, **rules: dict[str, float]) -> Path:
    summary = json.loads((run / "summary.json").read_text()) | rules
    (run / "summary.json").write_text(json.dumps(summary))
    return run


@pytest.mark.usefixtures("no_plots")
def test_figures_of_any_kind_without_source_and_target(tmp_path: Path) -> None:
    chosen = {
        "step": 60,
        "few_shot/5way_1shot/accuracy": 0.4832,
        "few_shot/5way_1shot/ci95": 0.0061,
        "harmonic_mean": 0.5,
        "task/box/iou": 0.71,
        "task/box/iou_ci95": 0.02,
        "open/accuracy": 0.25,
        "open_ci95": 0.01,
        "delta_m": -0.034,
        "depth/rmse": 1.23456,
    }
    run = make_run(tmp_path / "run", baseline=False)
    with_figures(run, selected=chosen, last={}, oracle={})
    lines = text_summary(run).splitlines()
    assert lines[2:10] == [
        "figures (shares in %)",
        "few_shot/5way_1shot/accuracy  48.3 ± 0.6",
        "harmonic_mean                 50.0",
        "task/box/iou                  0.710 ± 0.020",
        "open/accuracy                 25.0 ± 1.0",
        "delta_m                       -3.4",
        "depth/rmse                    1.235",
        "",
    ]
    assert not any("target test" in line.lower() for line in lines)
    page = Page(write_report(run))
    assert "Few shot 5way 1shot accuracy" in page.text  # the headline
    assert "48.3 ± 0.6" in page.text
    assert "not measured" not in page.text


@pytest.mark.usefixtures("no_plots")
def test_a_difference_is_no_headline(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", baseline=False)
    figures = {"step": 60, "delta_m": -0.034, "task/dog/accuracy": 0.8}
    page = Page(write_report(with_figures(run, selected=figures)))
    assert "Task dog accuracy" in page.text
    assert "Delta m" not in page.text


@pytest.mark.usefixtures("no_plots")
def test_further_figures_follow_the_target_and_have_their_before(tmp_path: Path) -> None:
    many = {f"task/{k}/accuracy": 0.5 for k in range(20)}
    chosen = {"step": 60, "target_test/accuracy": 0.5, "unseen/accuracy": 0.4, **many}
    run = make_run(tmp_path / "run", baseline=False)
    with_figures(run, selected=chosen, before={"unseen/accuracy": 0.3})
    lines = text_summary(run).splitlines()
    assert len(lines) <= 25
    assert lines[2:4] == ["accuracy, %", "target test     50.0"]
    assert "unseen/accuracy   30.0  40.0" in lines
    assert "  (and 9 more in summary.json)" in lines


def test_neither_run_nor_sweep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a run folder"):
        write_report(tmp_path)


@pytest.mark.usefixtures("no_plots")
def test_text_summary(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_report(run)
    text = text_summary(run)
    lines = text.splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 100 + len(str(run))
    assert lines[0] == "dann on mnist_mnistm, seed 0: completed in 4 min 22 s"
    spent = (
        "Time: start 8.1 s, training 3 min 21 s, evaluations 30.0 s, report 12.0 s, other 11.0 s."
    )
    assert spent in lines
    older = json.loads((run / "summary.json").read_text())
    del older["wall_seconds"]
    (run / "summary.json").write_text(json.dumps(older))
    title = text_summary(run).splitlines()[0]
    assert title == "dann on mnist_mnistm, seed 0: completed, 3 min 21 s of training"
    target = next(line for line in lines if line.startswith("target test"))
    assert target.split() == ["target", "test", "55.0", "93.0", "+38.0"]
    assert any(line.startswith("  7 ") for line in lines)
    assert "information_maximization selected step 1,800" in text
    assert lines[-1] == f"Report: {run / 'report.html'}"


@pytest.mark.usefixtures("no_plots")
def test_text_summary_of_many_classes_stays_short(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", classes=tuple(f"class {k}" for k in range(345)), images=1000)
    text = text_summary(run)
    assert len(text.splitlines()) <= 25
    assert "hardest of 345 classes" in text
    assert "Run folder:" in text  # no report was written


@pytest.mark.usefixtures("no_plots")
def test_text_summary_without_baseline(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", baseline=False)
    lines = text_summary(run).splitlines()
    assert next(line for line in lines if line.startswith("target test")).split() == [
        "target",
        "test",
        "93.0",
    ]


def test_wilson_by_hand() -> None:
    low, high = wilson(0.5, 100)  # Wilson (1927): 0.4038, 0.5962
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert wilson(1.0, 10)[1] == pytest.approx(1.0)


def test_how_values_are_written() -> None:
    assert [number(s, "seconds") for s in (3.21, 201.3, 7380, None)] == [
        "3.2 s",
        "3 min 21 s",
        "2 h 3 min",
        "–",
    ]
    assert [number(v, "share") for v in (0.9312, float("nan"), True)] == ["93.1", "–", "–"]
    assert number(0.381, "share", signed=True) == "+38.1"
    assert [number(p, "p") for p in (0.0312, 0.0004)] == ["0.031", "< 0.001"]
    assert [number(v, "IoU", sign=True) for v in (0.5, None)] == ["0.500", "–"]
    assert plain({"a": [1, True], "b": None}) == "a: 1, true, b: –"
