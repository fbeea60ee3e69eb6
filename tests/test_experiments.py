"""A preset is a row of a paper: its header says what it is worth, and it composes and runs."""

import re
import shlex

import pytest

from helpers import small
from tlrun.config.compose import compose
from tlrun.config.packaged import conf_dir

FOLDER = conf_dir() / "experiment"
PRESETS = sorted(str(p.relative_to(FOLDER).with_suffix("")) for p in FOLDER.rglob("*.yaml"))
KEYS = ("reference", "published", "ours", "tuned", "budget", "command")
TABLE = ("digits/", "pacs/")  # methods x pairs x seeds: one seed of all comes first, and n says so


def header(name):
    """{key: text} of the comment lines `# key: text` at the head; more lines continue a text."""
    found, key = {}, None
    for line in (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        begun = re.match(r"# (\w+): +(.*)", line)
        if begun and begun[1] in KEYS:
            key = begun[1]
            found[key] = begun[2]
        elif key:
            found[key] += " " + line.lstrip("# ")
    return found


def figure(text):
    """(mean, std, n) of a header's `ours: 93.1 ± 0.3 (n=3, ...)`; one run has no spread."""
    mean, std, n = re.match(r"([\d.]+)(?: ± ([\d.]+))? \(n=(\d+)", text).groups()
    assert (std is None) == (n == "1")
    return float(mean), float(std or 0), int(n)


@pytest.mark.parametrize("name", PRESETS)
def test_the_header_is_complete(name):
    found = header(name)
    assert set(KEYS) - ({"tuned"} if not name.startswith(TABLE) else set()) <= found.keys()
    mean, _, n = figure(found["ours"])
    assert 0 < mean <= 100
    minutes = float(re.search(r"(\d+(\.\d+)?) minutes", found["budget"])[1])
    # what takes long may be one run, and says so
    assert n >= 3 or minutes >= 10 or name.startswith(TABLE)
    assert re.search(r"core|GPU", found["budget"])


@pytest.mark.parametrize("name", PRESETS)
def test_the_command_is_this_preset(name):
    words = shlex.split(header(name)["command"])
    assert words[0] == "tlrun"
    assert f"experiment={name}" in words
    seeds = next(word for word in words if word.startswith("seed="))
    asked, done = len(seeds.split(",")), figure(header(name)["ours"])[2]
    assert asked == done or (name.startswith(TABLE) and asked > done)


@pytest.mark.parametrize("name", PRESETS)
def test_it_composes(name):
    cfg = compose([f"experiment={name}"])
    assert cfg.evaluate.target_test
    assert cfg.select.name != "oracle"


BUNDLED = [p for p in PRESETS if p.startswith(("digits_digitsm/", "bundled/"))]


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_one_runs_for_two_steps(name, tmp_path, monkeypatch):
    if "width" not in compose([f"experiment={name}"]).backbone:
        narrow = tuple(word for word in small.QUICK if "width" not in word)
        monkeypatch.setattr(small, "QUICK", narrow)
    session = small.session(
        tmp_path / "run", f"experiment={name}", "trainer.steps=2", "trainer.eval_every=2"
    )
    trainer = session.trainer()
    trainer.fit()
    steps = sum(trainer.total_steps(phase) for phase in session.phases)
    assert session.run_dir.read_metrics()[-1]["step"] == steps


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_its_figure(name, tmp_path):
    """One seed of the very command, within three standard deviations (at least two points)."""
    from tlrun.experiment.start import create_run_folder, run_experiment

    overrides = [f"experiment={name}", "seed=0", "baseline=false"]
    summary = run_experiment(create_run_folder(compose(overrides), tmp_path / "run", overrides))
    mean, std, _ = figure(header(name)["ours"])
    figures = summary["selected"]
    accuracy = 100 * figures.get("target_test/accuracy", figures[summary["headline"]])
    assert abs(accuracy - mean) <= max(3 * std, 2.0)
