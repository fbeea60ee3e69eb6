"""An augmentation that does not fit its images is refused before anything is trained."""

import pytest

from helpers import small
from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.errors import ConfigError
from tlrun.experiment.assemble import open_session
from tlrun.experiment.auto import resolve_auto
from tlrun.run_folder.run_dir import RunDir

MARGIN = "data.augment.target.blend_margin=0.5"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["method=dann", MARGIN], "blend_margin lays .* give it as data.augment.source"),
        (
            ["method=dann", "data.augment.target.blend=1"],
            "target.blend lays .* data.augment.source",
        ),
        (["method=shot", MARGIN], "blend_margin lays"),
        (["method=mme", "target_labels=1", MARGIN], "blend_margin lays"),
        (
            ["method=multitask", "data=digits_fours_nines", "+data.augment.all.blend=1"],
            "blend lays .* of data with a source and a target",
        ),
        (["method=dann", "data.augment.target.binarize=1"], "of these images that is 9.%.*MNIST"),
        (["method=shot", "data.augment.target.binarize=1"], "target.binarize makes all"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        small.session(tmp_path / "run", *options)


def test_digits_on_black_can_be_black_and_white(tmp_path):
    options = ("data.augment.source={binarize: 1, blend_margin: 0.5}",)
    assert small.session(tmp_path / "run", "method=dann", *options)


def test_features_know_no_rotation_in_a_later_phase(tmp_path):
    table = tmp_path / "set.csv"
    rows = [f"{'ab'[i % 2]},{i % 7},{i % 5}" for i in range(40)]
    table.write_text("\n".join(["label,x,y", *rows]))
    words = [f"data.{domain}.path={table}" for domain in ("source", "target")]
    words += ["data=features", "backbone=mlp", "method=shot", "data.augment.target.rotate=5"]
    run = RunDir.create(tmp_path / "run")
    with pytest.raises(ConfigError, match="features know only"):
        open_session(run, plain(resolve_auto(compose(words))))
