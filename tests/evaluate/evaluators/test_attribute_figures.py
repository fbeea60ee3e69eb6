"""Figures of generalized zero-shot learning, by hand; and predicting with added classes."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.small import QUICK
from tlrun.cli.main import main
from tlrun.data.problems.label_space import AttributeFacts, LabelSpace, Task
from tlrun.errors import ConfigError
from tlrun.evaluate.evaluators.attribute_figures import (
    best_gamma,
    curve,
    harmonic_mean,
    mean_per_class,
    only,
)
from tlrun.inference.descriptions import handicap
from tlrun.inference.predict import NO_LABEL, load

SEEN = torch.tensor([True, True, False, False])
EVERY = torch.ones(4, dtype=torch.bool)


def test_means_are_over_classes_not_images():
    scores = torch.eye(4)[[0, 0, 0, 1]]
    labels = torch.tensor([0, 0, 0, 2])
    assert mean_per_class(scores, labels) == pytest.approx(0.5)
    assert harmonic_mean(0.8, 0.2) == pytest.approx(0.32)
    assert harmonic_mean(0.0, 0.0) == 0.0


def test_the_curve_equals_calibrated_stacking_at_every_gamma():
    draws = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (30,), generator=draws)
    seen = (torch.randn(30, 4, generator=draws), labels)
    unseen = (torch.randn(30, 4, generator=draws), 2 + labels.flip(0))
    found = curve(seen, unseen, SEEN, EVERY)
    for gamma in (-5.0, -1.0, 0.0, 0.3, 1.0, 5.0):
        wanted = [mean_per_class(s - gamma * SEEN, y) for s, y in (seen, unseen)]
        assert found.at(gamma) == pytest.approx(wanted)
    h = [harmonic_mean(*found.at(g)) for g in torch.linspace(-4, 4, 400).tolist()]
    assert harmonic_mean(*found.at(found.best())) >= max(h) - 1e-12
    s0 = mean_per_class(only(seen[0], SEEN), seen[1])
    u1 = mean_per_class(only(unseen[0], ~SEEN), unseen[1])
    assert found.at(-100.0) == pytest.approx((s0, 0.0))
    assert found.at(100.0) == pytest.approx((0.0, u1))
    assert 0 < found.area < s0 * u1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short ConSE run on the bundled digits, through the command."""
    folder = tmp_path_factory.mktemp("zero_shot")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["method=conse", "data=digits_attributes", "select=last", "hydra.run.dir=run"]
        assert main([*QUICK, *words]) == 0
        words[3] = "hydra.run.dir=plain"
        assert main([*QUICK, *words, "data.validation=[]", "report=none"]) == 0
    pixels = torch.zeros(28, 28, dtype=torch.uint8)
    pixels[4:24, 13:15] = 255
    Image.fromarray(pixels.numpy()).save(folder / "one.png")
    return folder


def test_a_run_reports_its_figures_and_its_curve(run):
    summary = json.loads((run / "run/summary.json").read_text())
    selected = summary["selected"]
    for key in ("unseen/accuracy", "seen/accuracy", "harmonic_mean", "calibrated/harmonic_mean"):
        assert 0 <= selected[key] <= 1
    (drawn,) = json.loads((run / "run/pictures.json").read_text())
    assert drawn["kind"] == "lines"
    rows = [json.loads(line) for line in (run / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["validator/source_accuracy"] == rows[-1]["source_val/accuracy"]


def test_predict_with_a_mixture_an_added_class_and_none_of_these(run, capsys):
    image = str(run / "one.png")
    assert main(["predict", str(run / "run"), image]) == 0
    assert "-> nearest: " in capsys.readouterr().out
    space = json.loads((run / "run/label_space.json").read_text())
    names = space["facts"]["attribute_names"]
    more = run / "more.csv"
    row = ["0.5"] * len(names)
    more.write_text(f"class,{','.join(names)}\ndash,{','.join(row)}\n")
    plain, wide = load(run / "run"), load(run / "run", classes=more)
    assert wide.classes == (*plain.classes, "dash")
    x = torch.randint(256, (3, 1, 28, 28), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(wide(x)[:, :10], plain(x))
    output = run / "out.csv"
    words = ["--classes", str(more), "--unknown-below", "0.99", "--output", str(output)]
    assert main(["predict", str(run / "run"), image, *words]) == 0
    header, line = output.read_text().splitlines()
    assert header == "path,label,confidence,note"
    assert NO_LABEL in line


def test_the_calibration_needs_no_further_key(run):
    """Without validation classes γ comes from seen classes that are held out in turn."""
    selected = json.loads((run / "plain/summary.json").read_text())["selected"]
    assert selected["calibration/gamma"] is not None
    assert selected["calibrated/harmonic_mean"] is not None


def test_predict_among_the_unseen_classes_or_with_a_gamma_of_ones_own(run, capsys):
    space = json.loads((run / "run/label_space.json").read_text())
    facts, classes = space["facts"], space["classes"]
    seen = torch.tensor([c in facts["training"] + facts["validation"] for c in classes])
    x = torch.randint(256, (3, 1, 28, 28), dtype=torch.uint8)
    with torch.no_grad():
        plain = load(run / "run", gamma=0.0)(x)
        torch.testing.assert_close(load(run / "run", gamma=0.5)(x), plain - 0.5 * seen)
        only_unseen = load(run / "run", candidates="unseen")(x)
    torch.testing.assert_close(only_unseen, plain.masked_fill(seen, -torch.inf))
    output = run / "unseen.csv"
    words = ["predict", str(run / "run"), str(run / "one.png"), "--output", str(output)]
    assert main([*words, "--candidates", "unseen"]) == 0
    assert output.read_text().splitlines()[1].split(",")[1] in facts["unseen"]
    assert main([*words, "--gamma", "5"]) == 0
    assert output.read_text().splitlines()[1].split(",")[1] in facts["unseen"]
    assert main([*words, "--gamma", "-5"]) == 0
    assert output.read_text().splitlines()[1].split(",")[1] not in facts["unseen"]
    none = AttributeFacts([[1.0]], ["a"], ["x"], [], [], True, None)
    with pytest.raises(ConfigError, match="knows no unseen class"):
        handicap(
            LabelSpace({"class": Task("class", "attributes", ("x",))}, none), {}, None, "unseen"
        )
    with pytest.raises(ConfigError, match="for runs of a zero-shot method"):
        handicap(LabelSpace({"class": Task("class", "class", ("x",))}), {}, 0.1)


def test_one_gamma_for_several_groups():
    draws = torch.Generator().manual_seed(1)
    curves = []
    for _ in range(3):
        labels = torch.randint(2, (20,), generator=draws)
        seen = (torch.randn(20, 4, generator=draws), labels)
        unseen = (torch.randn(20, 4, generator=draws), 2 + labels)
        curves.append(curve(seen, unseen, SEEN, EVERY))

    def mean(gamma):
        return sum(harmonic_mean(*c.at(gamma)) for c in curves) / 3

    assert (
        mean(best_gamma(curves)) >= max(mean(g) for g in torch.linspace(-5, 5, 500).tolist()) - 1e-9
    )


def test_a_folder_of_pictures_and_a_csv_of_attributes(tmp_path, monkeypatch):
    """The command of docs/methods/zero_shot.md: red and blue things, and the purple between."""
    colours = {
        "red": (1, 0),
        "blue": (0, 1),
        "pink": (1, 0.3),
        "navy": (0.2, 0.6),
        "purple": (0.6, 0.8),
    }
    draws = np.random.default_rng(0)
    for name, (r, b) in colours.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(20):
            noise = draws.integers(0, 30, (8, 8, 3))
            pixels = (noise + 200 * np.array([r, 0, b])).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{k}.png")
    lines = [f"{name},{r},{b}" for name, (r, b) in colours.items()]
    (tmp_path / "classes.csv").write_text("class,red,blue\n" + "\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    words = ["method=eszsl", "data=attributes", "data.images.root=photos", "select=last"]
    words += ["data.table.path=classes.csv", "data.unseen=[purple]", "hydra.run.dir=run"]
    small = [
        "backbone=mlp",
        "backbone.hidden=[]",
        "data.size=8",
        "report=none",
        *(word for word in QUICK if "width" not in word),
    ]
    assert main([*words, *small]) == 0
    selected = json.loads((tmp_path / "run/summary.json").read_text())["selected"]
    assert selected["calibration/gamma"] is not None
    assert selected["calibrated/unseen"] == 1.0
    out = tmp_path / "out.csv"
    assert main(["predict", "run", "photos/purple", "--output", str(out)]) == 0
    assert {line.split(",")[1] for line in out.read_text().splitlines()[1:]} == {"purple"}


def test_the_command_of_the_page_on_tiny_pictures(tmp_path, monkeypatch):
    """docs/methods/zero_shot.md: its command and its table, word by word."""
    page = (Path(__file__).parents[3] / "docs/methods/zero_shot.md").read_text(encoding="utf-8")
    command = re.search(r"^tlrun (method=conse data=attributes .*)$", page, re.MULTILINE)[1]
    table = re.search(r"```\n(class,.*?)```", page, re.DOTALL)[1]
    (tmp_path / "classes.csv").write_text(table)
    draws = np.random.default_rng(0)
    for number, line in enumerate(table.splitlines()[1:]):
        folder = tmp_path / "photos" / line.split(",")[0]
        folder.mkdir(parents=True)
        for k in range(12):
            pixels = draws.integers(0, 120, (12, 12, 3)) + 20 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{k}.png")
    monkeypatch.chdir(tmp_path)
    small = ["data.size=16", "report=none", "hydra.run.dir=run", *QUICK]
    assert main([*shlex.split(command), *small]) == 0
    selected = json.loads((tmp_path / "run/summary.json").read_text())["selected"]
    assert selected["calibration/gamma"] is not None
    assert selected["calibrated/harmonic_mean"] is not None
    out = tmp_path / "out.csv"
    words = ["predict", "run", "photos/liger", "--candidates", "unseen", "--output", str(out)]
    assert main(words) == 0
    rows = list(csv.DictReader(out.open()))
    assert {row["label"] for row in rows} <= {"liger", "okapi"}
    assert all("%" in row["note"] and "-> nearest: " in row["note"] for row in rows)


def test_mistakes_with_added_classes(run, tmp_path, capsys):
    more = tmp_path / "more.csv"
    more.write_text("class,top,topp\ndash,1,1\n")
    words = ["predict", str(run / "run"), str(run / "one.png"), "--classes", str(more)]
    assert main(words) != 0
    assert "unknown attribute 'topp'" in capsys.readouterr().err
    more.write_text("class,top\n6,1\n")
    assert main(words) != 0
    assert "has a class '6' already" in capsys.readouterr().err
