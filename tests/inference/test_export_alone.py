"""An exported file alone: what it says of itself, and the script of the docs that uses it."""

import csv
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.data_files import REAL, real_data
from tlrun.inference import export
from tlrun.inference.metadata import EXTRA_FILE, metadata
from tlrun.inference.predict import image_files, load

torch.set_num_threads(1)
PAGE = Path(__file__).parents[2] / "docs" / "run_folder.md"
PHOTOGRAPHS = 50


@pytest.fixture
def script(tmp_path):
    """label.py as the page has it."""
    pytest.importorskip("onnxruntime", reason="the extra tlrun[onnx] is not installed")
    pytest.importorskip("onnxscript", reason="the extra tlrun[onnx] is not installed")
    name, block = r"\*\*`label\.py`\*\*\n\n", r"```python\n(.*?)```"
    (text,) = re.findall(name + block, PAGE.read_text(encoding="utf-8"), re.DOTALL)
    imported = re.findall(r"^(?:import|from) (.+)", text, re.MULTILINE)
    assert imported == ["json, sys", "numpy as np, onnxruntime", "PIL import Image, ImageOps"]
    path = tmp_path / "label.py"
    path.write_text(text)
    return path


@pytest.fixture
def run_of(run_writer, tmp_path):
    """run_of(backbone=..., size=..., **arguments of Preprocess) -> a run folder."""

    def run_of(backbone="dann_cnn", size=28, fit="crop", **more):
        words = ["method=dann", f"backbone={backbone}"]
        return run_writer(tmp_path / "run", words, (3, size, size), "imagenet", fit=fit, **more)

    return lambda **more: run_of(**more).run.path


def photograph(path, seed):
    """Smooth colours and an edge, of its own size and shape; some turned, grey or transparent."""
    rng = np.random.default_rng(seed)
    width, height = (int(n) for n in rng.integers(20, 400, 2))
    coarse = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    if seed % 5 == 0:
        exif[0x0112] = 6  # a camera on its side
    if seed % 7 == 0:
        image = image.convert("L")
    if seed % 6 == 0:
        alpha = Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))
        image.putalpha(alpha)
        image.save(path / f"{seed:02}.png")
    else:
        image.save(path / f"{seed:02}.jpg", exif=exif)


def said_by(script, model, paths):
    command = [sys.executable, script, model, *paths]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(csv.reader(io.StringIO(said)))


def assert_agree(script, run, folder, tmp_path):
    """The script's labels are predict's, and so are its confidences."""
    paths = image_files([folder])
    assert len(paths) == PHOTOGRAPHS
    model = export.main(run, "onnx", tmp_path / "model.onnx")
    expected = load(run).predict_files(paths)
    said = said_by(script, model, paths)
    assert [row[:2] for row in said] == [[p.path, p.label] for p in expected]
    assert [float(row[2]) for row in said] == pytest.approx(
        [p.confidence for p in expected], abs=2e-5
    )
    assert len({p.confidence for p in expected}) > PHOTOGRAPHS // 2


@pytest.mark.parametrize(
    "preprocess",
    [{"fit": "crop"}, {"fit": "squash", "channels": 1, "interpolation": "bicubic"}],
    ids=["crop", "squash"],
)
def test_the_script_of_the_docs_labels_as_predict_does(script, run_of, preprocess, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in range(PHOTOGRAPHS):
        photograph(folder, seed)
    assert_agree(script, run_of(**preprocess), folder, tmp_path)


@real_data
@pytest.mark.slow
def test_it_does_so_on_photographs_of_pacs(script, run_of, tmp_path):
    archives = sorted(Path(REAL, "PACS").glob("*.tar"))
    if not archives:
        pytest.skip("needs the photographs of PACS")
    folder = tmp_path / "photographs"
    folder.mkdir()
    with tarfile.open(archives[0]) as archive:
        photos = [m for m in archive.getmembers() if "/photo/" in m.name and m.isfile()]
        for i, member in enumerate(photos[:: len(photos) // PHOTOGRAPHS][:PHOTOGRAPHS]):
            (folder / f"{i}.jpg").write_bytes(archive.extractfile(member).read())
    assert_agree(script, run_of(backbone="resnet18", size=96), folder, tmp_path)


def test_torch_export_says_the_same(run_of, tmp_path):
    run = run_of()
    path = export.main(run, "torch_export", tmp_path / "model.pt2")
    extra = {EXTRA_FILE: ""}
    torch.export.load(path, extra_files=extra)
    said = json.loads(extra[EXTRA_FILE])
    assert said == metadata(load(run))
    assert said["classes"] == ["cat", "dog", "fox"]
    assert (said["size"], said["channels"], said["fit"]) == (28, 3, "crop")
    assert (said["input"], said["output"], said["normalize"]) == ("images", "logits", "imagenet")
    assert said["mean"] == pytest.approx([0.485, 0.456, 0.406])


def test_features_say_their_columns(feature_run):
    model = load(feature_run.run.path)
    assert "size" not in metadata(model)
    model.feature_names = ("a", "b")
    assert metadata(model)["columns"] == ["a", "b"]


def test_every_key_stands_in_the_docs(image_run, feature_run):
    table = PAGE.read_text(encoding="utf-8").partition("### An exported file alone")[2]
    model = load(image_run.run.path)
    model.task, model.feature_names = "which", ("a",)
    for key in metadata(model):
        assert f"`{key}`" in table, key
