"""A preset is a row of a paper: its header says what it is worth, and it composes and runs."""

import re
import shlex
from pathlib import Path

import pytest

from helpers import small
from tlrun.config.compose import compose
from tlrun.config.packaged import conf_dir

ROOT = Path(__file__).parent.parent
FOLDER = conf_dir() / "experiment"
PRESETS = sorted(str(p.relative_to(FOLDER).with_suffix("")) for p in FOLDER.rglob("*.yaml"))
NEEDED = ("reference", "published", "ours", "tuned", "budget", "command")
KEYS = (*NEEDED, "effect")  # a preset of each family: ours, and without the method
TABLE = ("digits/", "pacs/")  # methods x pairs x seeds: one seed of all comes first, and n says so

FAMILIES = (
    *("conservative training", "layer transfer", "multi-task", "progressive", "domain-adversarial"),
    *("the alternating form", "zero-shot", "one- and few-shot"),
)


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
    assert set(NEEDED) - ({"tuned"} if not name.startswith(TABLE) else set()) <= found.keys()
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


EFFECTS = [p for p in PRESETS if "effect" in header(p)]


@pytest.mark.parametrize("name", EFFECTS)
def test_the_effect_is_of_its_own_figures_and_above_the_baseline(name):
    found = header(name)
    stated = re.fullmatch(
        r"([\d.]+)( ± [\d.]+)? against ([\d.]+)(?: ± [\d.]+)?, .*", found["effect"]
    )
    assert stated[1] + (stated[2] or "") in found["ours"]
    assert float(stated[1]) > float(stated[3])


def test_every_family_of_the_mission_states_its_effect():
    table = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").split("<!-- effects -->")[1]
    stated = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    for family in FAMILIES:
        assert family in stated, family


def rows():
    """(preset, recipe, cells) of each row of docs/results.md that a preset's runs make."""
    for line in (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines():
        found = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(found) == 10:
            name = found[0].strip("`")
            preset = name if name in PRESETS else name.rpartition("/")[0]
            yield preset, name[len(preset) + 1 :], found


def pair(recipe):
    """mnist_usps_mnistm_blend: MNIST+USPS→MNIST-M."""
    *sources, target = [d for d in recipe.upper().split("_") if d[:5] in ("MNIST", "USPS")]
    return ("+".join(sources) + f"→{target}").replace("MNISTM", "MNIST-M")


def test_headers_state_the_figures_of_the_table():
    """scripts/results.py --write copies them; whoever types one elsewhere is found here."""
    for preset, recipe, (_, n, selected, last, oracle, *_) in rows():
        ours = header(preset)["ours"]
        stated = f"{selected} (n={n}" + (f", {pair(recipe)}" if recipe else "")
        assert stated in ours, (preset, recipe)
        assert recipe == "" or f"last {last}" in ours, (preset, recipe)
        assert "oracle" not in ours or f"oracle {oracle}" in ours, (preset, recipe)


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_readme_states_the_figures_of_the_table(name):
    selected = {row[0].strip("`"): row[2] for *_, row in rows()}
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    begin = lines.index("|---|---|---|---|---|---|---|") + 1
    stated = [[cell.strip() for cell in line.split("|")[2:7]] for line in lines[begin : begin + 4]]
    longer = ["mnist_usps", "usps_mnist", "mnist_mnistm_margin"]
    for recipe, long, found in zip(
        ["mnist_usps", "usps_mnist", "mnist_mnistm"], longer, stated, strict=False
    ):
        bounds = [selected[f"digits/{method}/{recipe}"] for method in ("source_only", "dann")]
        ranked = [
            row[2]
            for preset, of, row in rows()
            if of == recipe
            and int(row[1]) >= 3
            and not re.search("source_only|target_only|digits/best", preset)
        ]
        best = max(ranked, key=lambda cell: float(cell.split()[0]))
        pairs = [selected[f"digits/{name}/{long}"] for name in ("best_source_only", "best")]
        assert found == [*bounds, best, *pairs]
    assert stated[3][:2] == [selected[f"digits_digitsm/{m}"] for m in ("source_only", "dann")]


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
