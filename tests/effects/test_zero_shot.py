"""Zero-shot learning: classes without an image are named from a description of each."""

import csv
import re

import numpy as np
import pytest
from PIL import Image

from helpers import effects
from helpers.effects import figure, steps, summary_of
from tlrun.inference.predict import main as predict

ANIMALS = ("tiger", "lion", "zebra", "elephant", "wolf", "parrot")
MIXED = {"liger": ("tiger", "lion"), "parrophant": ("parrot", "elephant")}
PLAIN = ("backbone=mlp", "backbone.hidden=[]", "data.size=8", "optimizer.lr=1e-2")  # on pixels
SHORT = tuple(word for word in effects.SHORT if not word.startswith(("backbone", "optimizer")))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return zoo_of(0, tmp_path_factory.mktemp("zoo"))


def zoo_of(world, folder):
    """Pictures of six animals, each a pattern of its own, and of two whose pattern and attributes
    are the mean of two of these."""
    draws = np.random.default_rng(world)
    pattern = {animal: draws.random((8, 8, 3)) for animal in ANIMALS}
    rows = {animal: (draws.random(10) > 0.5).astype(float) for animal in ANIMALS}
    for child, (a, b) in MIXED.items():
        pattern[child], rows[child] = (pattern[a] + pattern[b]) / 2, (rows[a] + rows[b]) / 2
    for animal, mean in pattern.items():
        for k in range(24):
            pixels = (mean + 0.25 * draws.standard_normal(mean.shape)).clip(0, 1)
            path = folder / "images" / animal / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((255 * pixels).astype(np.uint8)).save(path)
    half = Image.fromarray((255 * pattern["liger"]).astype(np.uint8))
    half.save(folder / "half_tiger_half_lion.png")
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["class", *(f"attribute{k}" for k in range(10))])
        table.writerows([animal, *row] for animal, row in rows.items())
    return folder


def of_zoo(zoo, method, *words, name=""):
    own = ("data=attributes", f"data.images.root={zoo}/images", f"data.table.path={zoo}/table.csv")
    unseen = (f"data.unseen=[{','.join(MIXED)}]", "trainer.batch_size=32", *steps(60))
    command = (f"method={method}", *own, *PLAIN, *unseen, *words)
    return summary_of(zoo / (name or method), *command, short=SHORT)


@pytest.mark.parametrize(("method", "words"), [("conse", ("method.top=2",)), ("eszsl", ())])
def test_animals_never_seen_are_named_by_their_attributes(method, words, zoo):
    """T1, chance 1/2, is 100 % in four worlds; of all eight, chance 1/8, ConSE names 73, 38, 83 and
    55 % of the unseen ones, ESZSL 90, 54, 53 and 69 %."""
    summary = of_zoo(zoo, method, *words)
    assert figure(summary, "seen/accuracy") > 0.9
    assert figure(summary, "unseen/accuracy") > 0.5 + 0.4
    assert figure(summary, "generalized/unseen") > 1 / 8 + 0.15


@pytest.mark.parametrize(("method", "margin"), [("ale", 0.06), ("dap", 0.3)])
def test_gamma_needs_no_further_key(method, margin, tmp_path):
    """Every mixed animal is found among all eight, at a price for the six: H is 43 and then 60 with
    ALE, 44 and 93 with DAP, means of eight worlds. In two of them, with ALE, the price is too high.
    """
    plain, calibrated = [], []
    for world in range(8):
        summary = of_zoo(zoo_of(world, tmp_path / str(world)), method)
        assert figure(summary, "calibrated/unseen") > 0.9 > figure(summary, "generalized/unseen")
        plain.append(figure(summary, "harmonic_mean"))
        calibrated.append(figure(summary, "calibrated/harmonic_mean"))
    assert np.mean(calibrated) > np.mean(plain) + margin


def test_half_tiger_and_half_lion_is_a_liger(zoo):
    """54, 64, 55 and 53 % lion, the rest tiger, in four worlds; the nearest of all is the liger."""
    of_zoo(zoo, "conse", "method.top=2", name="half")
    (found,) = predict(zoo / "half", [zoo / "half_tiger_half_lion.png"])
    assert found.label == "liger"
    shares = {name: int(share) for share, name in re.findall(r"(\d+) % (\w+)", found.note)}
    assert shares.keys() == {"tiger", "lion"}
    assert min(shares.values()) > 25


@pytest.mark.parametrize(("method", "margin"), [("ale", 0.15), ("conse", 0.06)])
def test_digits_never_seen_are_named_by_their_strokes(method, margin, tmp_path):
    """6 or 9, chance 1/2, seeds 0 to 2: ALE 81, 96 and 88 %, ConSE 67, 69 and 73 %."""
    words = ("data=digits_attributes", "data.augment.source=null", "trainer.batch_size=64")
    command = (f"method={method}", *words, *PLAIN, "seed=2", *steps(100))
    summary = summary_of(tmp_path / "run", *command, short=SHORT)
    assert figure(summary, "unseen/accuracy") > 0.5 + margin
