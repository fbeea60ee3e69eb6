"""`tlrun features`: files that other tools read, and data=features."""

import numpy as np
import pytest
import torch

from helpers import small
from tlrun.cli.main import main
from tlrun.config.build import plain
from tlrun.config.compose import compose
from tlrun.data.examples.feature_file import read_features
from tlrun.experiment.assemble import open_session
from tlrun.experiment.auto import resolve_auto
from tlrun.inference.predict import load
from tlrun.run_folder.run_dir import RunDir

QUICK = [*small.QUICK, "method=source_only", "trainer.steps=2", "trainer.eval_every=2"]


def test_a_configuration_writes_every_image_of_each_domain_once(tmp_path, capsys):
    out = tmp_path / "out"
    words = ["data=digits_digitsm", "backbone.width=0.1", "trainer.precision=fp32"]
    assert main(["features", *words, "--output", str(out)]) == 0
    told = capsys.readouterr().out
    data = small.session(tmp_path / "run", "target_labels=all").data
    for domain in ("source", "target"):
        sets = {split: data.role(f"{domain}_{split}") for split in ("train", "val", "test")}
        with np.load(out / f"{domain}.npz") as file:
            count = sum(map(len, sets.values()))
            assert file["features"].shape == (count, 80)
            assert file["features"].dtype == np.float32
            assert [list(file["split"]).count(split) for split in sets] == [
                len(examples) for examples in sets.values()
            ]
            wanted = torch.cat([examples.labels for examples in sets.values()])
            assert [str(name) for name in wanted.tolist()] == list(file["labels"])
            assert list(file["class_names"]) == list(data.classes)
        assert f"{count:,} images" in told
    assert "data=features" in told


def test_features_train_a_run_of_their_own(tmp_path):
    out = tmp_path / "out"
    assert main(["features", "backbone.width=0.1", "--output", str(out)]) == 0
    assert read_features(out / "target.npz").labels is not None
    cfg = compose(
        [
            "data=features",
            "backbone=mlp",
            "method=source_only",
            f"data.source.path={out / 'source.npz'}",
            f"data.target.path={out / 'target.npz'}",
        ]
    )
    run = RunDir.create(tmp_path / "run")
    data = open_session(run, plain(resolve_auto(cfg))).data
    assert data.input_shape == (80,)
    assert list(data.classes) == [str(k) for k in range(10)]


def test_a_run_writes_the_features_of_its_selected_weights(tmp_path):
    run = tmp_path / "run"
    assert main([*QUICK, "report=none", f"hydra.run.dir={run}"]) == 0
    assert main(["features", str(run)]) == 0
    model = load(run)
    test = small.session(tmp_path / "again", "method=source_only").data.role("target_test")
    with np.load(run / "features" / "target.npz") as file, torch.no_grad():
        x = model.preprocess(test.read(torch.arange(len(test))))
        wanted = model.net(x, "target").features.numpy()
        np.testing.assert_allclose(
            file["features"][file["split"] == "test"], wanted, rtol=1e-4, atol=1e-5
        )
    other = tmp_path / "other"
    assert main(["features", str(run), "data=digits_styles_digitsm", "--output", str(other)]) == 0
    assert {path.stem for path in other.iterdir()} > {"target"}  # and each of the sources
    assert not (other / "source.npz").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=digits_digitsm", "there"], "the folder of a run stands first"),
        (["there"], "no folder there"),
        (["init=scratch"], "init=pretrained"),
        (["trainer.stepz=1"], "stepz"),
        ([], "see tlrun features --help"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(words, said, capsys):
    assert main(["features", *words]) == 2
    assert said in capsys.readouterr().err
