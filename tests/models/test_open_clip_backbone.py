"""The image encoder of a small CLIP model of random weights, against open_clip's own answer."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlrun.cli.main import main
from tlrun.errors import ConfigError
from tlrun.models.build import build_backbone

open_clip = pytest.importorskip("open_clip", reason="the extra open_clip is missing")

CONF = {"_target_": "tlrun.models.open_clip_backbone.open_clip_backbone", "name": "tiny"}
TINY = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path / "tiny.json")
    return open_clip.create_model("tiny", pretrained=None).eval()


def test_the_features_are_open_clips_own(tiny, tmp_path):
    torch.save(tiny.state_dict(), tmp_path / "weights.pt")
    ours = build_backbone({**CONF, "weights": str(tmp_path / "weights.pt")}, (3, 32, 32)).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), tiny.encode_image(x))
    assert ours.feature_dim == 12
    assert "transformer.resblocks.0" in ours.stage_names


def test_what_the_weights_were_trained_on(tiny):
    from tlrun.models.published import trained_on

    said = trained_on(CONF, "weights.pt")
    assert said.size == 32
    assert said.interpolation == "bicubic"
    assert said.mean == tuple(open_clip.OPENAI_DATASET_MEAN)


def test_zero_shot_from_pictures_is_what_open_clip_says(tiny, tmp_path, monkeypatch):
    """The whole way from files, by the model's own encoders: labels and confidences."""
    monkeypatch.chdir(tmp_path)
    torch.save(tiny.state_dict(), tmp_path / "weights.pt")
    draws = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(10):
            pixels = draws.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{k}.png")
    with torch.no_grad():
        text = tiny.encode_text(
            torch.tensor([[1, 5, 63, 0, 0, 0, 0, 0], [2, 7, 63, 0, 0, 0, 0, 0]])
        )
    np.savez("texts.npz", features=text.numpy(), classes=np.array(["cat", "dog"]))
    words = ["method=clip_zero_shot", "method.text=texts.npz", "method.temperature=0.1"]
    words += ["backbone=open_clip", "backbone.name=tiny", "backbone.weights=weights.pt"]
    words += ["data=folder", "data.source=null", "data.target.root=photos", "select=last"]
    words += ["report=none", "trainer.threads=1", "trainer.precision=fp32", "hydra.run.dir=run"]
    assert main(words) == 0
    mean, std = (
        torch.tensor(v)[:, None, None]
        for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    lines = Path("run/predictions.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(lines))
    assert rows
    for row in rows:
        pixels = np.array(Image.open(Path("photos") / "/".join(Path(row["path"]).parts[-2:])))
        x = (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std
        with torch.no_grad():
            near = torch.cosine_similarity(tiny.encode_image(x[None]), text) / 0.1
        assert row["prediction"] == ("cat", "dog")[int(near.argmax())]
        assert float(row["confidence"]) == pytest.approx(float(near.softmax(0).max()), abs=1e-4)


def test_mistakes(tiny):
    with pytest.raises(ConfigError, match="unknown open_clip model 'tiney'"):
        build_backbone({**CONF, "name": "tiney"}, (3, 32, 32))
    with pytest.raises(ConfigError, match="downloads nothing"):
        build_backbone({**CONF, "weights": "laion2b"}, (3, 32, 32))
    with pytest.raises(ConfigError, match="the data are vectors"):
        build_backbone(CONF, (5,))
    with pytest.raises(ConfigError, match=r"data\.channels=3"):
        build_backbone(CONF, (1, 32, 32))
