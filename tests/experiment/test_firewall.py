"""The label firewall, proved through whole runs: labels are permuted on disk, then all is compared.

Target training labels: nothing at all may change. Target test labels: only `oracle/*`, the final
target figures and the label columns (predictions.csv; features.npz, which colours the 2-D map).
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.every_method import METHODS, requirements_of
from helpers.small import QUICK
from tlrun.config.compose import compose
from tlrun.data.examples.splits import draw_per_class
from tlrun.data.pipeline.hashing import permutation
from tlrun.data.problems.options import Options
from tlrun.data.problems.pair import build_data
from tlrun.engine import checkpoint
from tlrun.experiment.resume import differences
from tlrun.experiment.start import create_run_folder, run_experiment
from tlrun.run_folder.run_dir import RunDir

CLASSES = ("ant", "bee", "cat", "dog")
TRAIN, TEST = 48, 20
TIMES = ("train_seconds", "wall_seconds", "images_per_second", "peak_memory_mb")
UNSUPERVISED = {
    name: needs
    for name in METHODS
    if (needs := requirements_of(name)).target_labels == "none"
    and needs.kind == "class"  # others have no target training set
    and name != "clip_zero_shot"  # learns from no image, and wants a file of text vectors
}
TEST_LABELS_MAY_CHANGE = (
    r"metrics\.\d+\.oracle/target_test_accuracy",
    r"summary\.(selected|last)\.target_test/.*",
    r"summary\.oracle\..*",
    r"predictions\.\d+\.label",
    r"features\.label",
    r"images\.(by_class|mistakes)(\.(rows|text))?",
)


# ---- a run, and all that it says --------------------------------------------------------------


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[RunDir, dict[str, Any]]]:
    """run(*overrides) -> its folder and everything in it that is not a time, as nested dicts."""
    monkeypatch.setattr(
        "tlrun.experiment.lifecycle.show", lambda run_dir: None
    )  # plots show what is compared here

    def run(*overrides: str) -> tuple[RunDir, dict[str, Any]]:
        words = [*QUICK, "trainer.steps=4", "trainer.eval_every=2", *overrides]
        if "backbone=mlp" in words:
            words.remove("backbone.width=0.1")
        run_dir = create_run_folder(compose(words), tmp_path / "run", words)
        run_experiment(run_dir)
        found = everything(run_dir)
        assert len([row for row in found["metrics"].values() if row["split"] == "eval"]) >= 3
        return run_dir, found

    return run


def everything(run: RunDir) -> dict[str, Any]:
    last = checkpoint.load_last(run.checkpoints)
    assert last is not None
    summary = run.read_json(run.summary)
    rows = [{k: v for k, v in row.items() if k != "time"} for row in run.read_metrics()]
    found = {
        "config": run.config.read_text(),
        "metrics": numbered(rows),
        "last": plain({key: last[key] for key in ("parts", "optimizer", "method", "step")}),
        "model": plain(load_file(run.model)),
        "environment": run.read_json(run.environment)["data"],
        "label_space": run.read_json(run.label_space),
        "summary": {k: v for k, v in summary.items() if k not in TIMES},
        "features": plain({k: torch.from_numpy(v) for k, v in np.load(run.features).items()}),
    }
    if run.images.exists():
        found["images"] = {section["name"]: section for section in run.read_json(run.images, list)}
    if run.predictions.exists():
        found["predictions"] = numbered(predictions(run))
    return found


def predictions(run: RunDir) -> list[dict[str, str]]:
    return list(csv.DictReader(run.predictions.open(encoding="utf-8")))


def numbered(items: Iterable[Any]) -> dict[str, Any]:
    return {str(i): item for i, item in enumerate(items)}


def plain(state: Any) -> Any:
    """Tensors as bytes: equal means bit-equal."""
    if isinstance(state, torch.Tensor):
        return (str(state.dtype), tuple(state.shape), state.numpy().tobytes())
    if isinstance(state, dict):
        return {str(key): plain(value) for key, value in state.items()}
    return numbered(map(plain, state)) if isinstance(state, list) else state


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Dotted names of all that differs."""
    return {key for key, _ in differences(before, after)}


def not_allowed(keys: set[str], patterns: Iterable[str] = TEST_LABELS_MAY_CHANGE) -> set[str]:
    return {key for key in keys if not any(re.fullmatch(p, key) for p in patterns)}


# ---- data on disk, and their permutation ------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source by class folders, a target whose files are listed with their labels."""
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "pair"
    for split, count, first in (("train", TRAIN, 0), ("test", TEST, TRAIN)):
        lines = []
        for i in range(count):
            name = CLASSES[i % len(CLASSES)]
            write_image(root / "source" / split / name / f"{i}.png", first + i)
            write_image(root / "target" / split / f"{i}.png", 1000 + first + i, shift=60)
            lines.append(f"target/{split}/{i}.png {name}")
        (root / f"{split}.txt").write_text("\n".join(lines))
    return root


def write_image(path: Path, number: int, shift: int = 0) -> None:
    """Noise with a bright row for the class: `number` is also the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng((number, shift)).integers(0, 120, (16, 16, 3), dtype=np.uint8)
    pixels[4 * (number % len(CLASSES)) + 1] = 180 + shift
    Image.fromarray(pixels).save(path)


def lists(pair: Path) -> list[str]:
    return [
        "data=folder",
        "data.size=16",
        f"data.source.root={pair / 'source'}",
        f"data.target.root={pair}",
        f"data.target.list={pair / 'train.txt'}",
        f"data.target.test.root={pair}",
        f"data.target.test.list={pair / 'test.txt'}",
    ]


def several_sources(pair: Path) -> list[str]:
    """The same as `lists`, but the source is there twice."""
    folder = "_target_: tlrun.data.sets.folder.folder"
    source = f"{{{folder}, root: {pair / 'source'}}}"
    target = f"{{{folder}, root: {pair}, list: {pair / 'train.txt'}"
    return [
        "data=digits_styles_digitsm",
        "~data.sources",
        "~data.target",
        f"+data.sources={{a: {source}, b: {source}}}",
        f"+data.target={target}, test: {{root: {pair}, list: {pair / 'test.txt'}}}}}",
        "data.size=16",
    ]


def permute(file: Path, only: set[str] | None = None) -> dict[str, str]:
    """Exchange the labels among the lines (of the files `only`); returns the new label by file."""
    rows = [line.split() for line in file.read_text().splitlines()]
    chosen = [i for i, (name, _) in enumerate(rows) if only is None or name in only]
    labels = [rows[i][1] for i in chosen]
    shuffled = labels[:]
    random.Random(0).shuffle(shuffled)
    assert sum(a != b for a, b in zip(labels, shuffled, strict=True)) > len(labels) / 2
    for i, label in zip(chosen, shuffled, strict=True):
        rows[i][1] = label
    file.write_text("\n".join(map(" ".join, rows)))
    return dict(rows)


# ---- target training labels -------------------------------------------------------------------


@pytest.mark.parametrize("method", UNSUPERVISED)
def test_target_training_labels_change_nothing(method: str, pair: Path, run: Callable) -> None:
    data = several_sources(pair) if UNSUPERVISED[method].sources > 1 else lists(pair)
    if UNSUPERVISED[method].open_set:
        data = [*data, "data.label_spaces=open", "data.source_classes=[ant, bee, cat]"]
    _, before = run(*data, f"method={method}", "selectors=[oracle,snd,last]")
    permute(pair / "train.txt")
    _, after = run(*data, f"method={method}", "selectors=[oracle,snd,last]")
    assert changed(before, after) == set()
    assert before["summary"]["target_labels_seen"] == 0


def test_nor_do_they_when_images_stay_files(pair: Path, run: Callable) -> None:
    few = [*lists(pair), "data.target.memory_gb=0"]
    _, before = run(*few)
    permute(pair / "train.txt")
    assert changed(before, run(*few)[1]) == set()


def test_nor_does_the_class_folder_of_a_training_image(pair: Path, run: Callable) -> None:
    """The label is the folder's name: files move from folder to folder."""
    labels = dict(line.split() for line in (pair / "train.txt").read_text().splitlines())
    folders = ["data=folder", "data.size=16", f"data.source.root={pair / 'source'}"]
    folders += [f"data.target.root={pair / 'sorted'}"]

    def place(label_of: dict[str, str]) -> None:
        shutil.rmtree(pair / "sorted", ignore_errors=True)
        for name, label in label_of.items():
            where = pair / "sorted" / "train" / label / Path(name).name
            where.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(pair / name, where)
        for i in range(TEST):
            where = pair / "sorted" / "test" / CLASSES[i % len(CLASSES)] / f"{i}.png"
            where.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(pair / "target" / "test" / f"{i}.png", where)

    place(labels)
    _, before = run(*folders)
    place(permute(pair / "train.txt"))
    assert changed(before, run(*folders)[1]) == set()


def test_the_method_that_sees_them_does_change(pair: Path, run: Callable) -> None:
    """The comparison has teeth: the upper bound reads the same lists."""
    _, before = run(*lists(pair), "method=target_only")
    permute(pair / "train.txt")
    _, after = run(*lists(pair), "method=target_only")
    keys = changed(before, after)
    assert any(key.startswith("last.parts.") for key in keys)
    assert any("label_checksum" in key for key in keys)
    assert after["summary"]["target_labels_seen"] == TRAIN


# ---- k labels per class -----------------------------------------------------------------------


def test_labels_behind_the_last_one_drawn_change_nothing(pair: Path, run: Callable) -> None:
    """With k per class, images are labelled one by one until every class has k: no label further
    on is ever looked at, nor one of the validation images."""
    k = 2
    words = [*lists(pair), "method=target_only", f"target_labels={k}"]
    data = build_data(compose(words).data, Options(seed=0, target_labels="all"))
    train, val = data.role("target_train"), data.role("target_val")
    assert train is not None
    assert val is not None
    assert train.paths is not None
    assert val.paths is not None
    order = permutation(len(train), "labelled", 0).tolist()
    drawn = draw_per_class(train, k, 0).tolist()
    last = max(order.index(i) for i in drawn)
    unseen = {str(Path(train.paths[i]).relative_to(pair)) for i in order[last + 1 :]}
    unseen |= {str(Path(path).relative_to(pair)) for path in val.paths}
    assert len(unseen) > TRAIN / 2

    _, before = run(*words)
    permute(pair / "train.txt", only=unseen)
    _, after = run(*words)
    assert changed(before, after) == set()
    assert after["summary"]["target_labels_seen"] == k * len(CLASSES)
    roles = after["environment"]["domains"]["target"]["splits"]
    assert roles["train"]["count_by_class"] == dict.fromkeys(CLASSES, k)
    assert "count_by_class" not in roles["val"]

    permute(pair / "train.txt", only={str(Path(train.paths[i]).relative_to(pair)) for i in drawn})
    assert any(key.startswith("last.parts.") for key in changed(after, run(*words)[1]))


def test_an_image_that_was_passed_over_was_looked_at(pair: Path) -> None:
    """What the count of labels does not say: its class was full, so another label draws it."""
    data = build_data(compose(lists(pair)).data, Options(seed=0, target_labels="all"))
    train = data.role("target_train")
    assert train is not None
    assert train.labels is not None
    drawn = draw_per_class(train, 2, 0).tolist()
    order = permutation(len(train), "labelled", 0).tolist()
    order = order[: max(order.index(i) for i in drawn) + 1]
    passed = next(i for i in order if i not in drawn)
    labels = train.labels.clone()
    labels[[passed, order[-1]]] = labels[[order[-1], passed]]  # the last one drawn, and this one
    again = draw_per_class(train.with_labels(labels, data.classes), 2, 0).tolist()
    assert passed in again
    assert again != drawn


# ---- target test labels -----------------------------------------------------------------------


def test_target_test_labels_change_the_oracle_and_final_figures_only(
    pair: Path, run: Callable
) -> None:
    words = [*lists(pair), "selectors=[source_accuracy,last]", "trainer.steps=20"]
    words += ["trainer.eval_every=10", "optimizer.lr=0.01"]
    _, before = run(*words)
    labels = permute(pair / "test.txt")
    run_dir, after = run(*words)
    keys = changed(before, after)
    assert not_allowed(keys) == set()
    assert "mistakes" in after["images"]
    for teeth in (
        r"images.by_class.*",
        r"metrics.*oracle.*",
        r"summary\.selected\..*",
        r"predictions.*",
        "features.*",
    ):
        assert any(re.fullmatch(teeth, key) for key in keys), teeth
    for row in predictions(run_dir):
        assert row["label"] == labels[str(Path(row["path"]).relative_to(pair))]


def test_with_the_target_test_off_they_change_nothing(pair: Path, run: Callable) -> None:
    words = [*lists(pair), "evaluate.target_test=false"]
    _, before = run(*words)
    permute(pair / "test.txt")
    run_dir, after = run(*words)
    assert changed(before, after) == set()
    assert [row["title"] for row in after["images"]["by_class"]["rows"]][-1] == "classes not shown"
    assert "mistakes" not in after["images"]
    assert "target_test" not in json.dumps([after["summary"]["selected"], after["metrics"]])
    assert after["summary"]["oracle"] == {"step": None, "target_test/accuracy": None}
    assert not run_dir.predictions.exists()


def test_only_the_oracle_says_that_it_saw_target_labels(pair: Path, run: Callable) -> None:
    for rule, saw in (("oracle", True), ("snd", False)):
        _, found = run(*lists(pair), f"select={rule}")
        assert found["summary"]["selection_saw_target_labels"] is saw
        assert found["summary"]["selection_rule"] == rule


# ---- other formats ----------------------------------------------------------------------------


@pytest.fixture
def mnist_m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MNIST and MNIST-M in miniature, in their published formats."""
    root = tmp_path / "sets"
    monkeypatch.setenv("TLRUN_DATA", str(root))
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "cache"))
    (root / "MNIST" / "raw").mkdir(parents=True)
    (root / "MNIST-M").mkdir()
    draw = np.random.default_rng(0)
    for split, old, count in (("train", "train", 60), ("test", "t10k", 30)):
        digits = np.arange(count, dtype=np.uint8) % 10
        images = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", digits)):
            head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            file = root / "MNIST" / "raw" / f"{old}-{name}-ubyte.gz"
            file.write_bytes(gzip.compress(head + array.tobytes()))
        with zipfile.ZipFile(root / "MNIST-M" / f"mnist_m_{split}.zip", "w") as archive:
            for i in range(count):
                out = io.BytesIO()
                pixels = draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(out, "PNG")
                archive.writestr(f"mnist_m_{split}/{i:08d}.png", out.getvalue())
        listed = "\n".join(f"{i:08d}.png {digit}" for i, digit in enumerate(digits))
        (root / "MNIST-M" / f"mnist_m_{split}_labels.txt").write_text(listed)
    return root / "MNIST-M"


def test_mnist_m_in_miniature(mnist_m: Path, run: Callable) -> None:
    _, before = run("data=mnist_mnistm")
    permute(mnist_m / "mnist_m_train_labels.txt")
    _, after = run("data=mnist_mnistm")
    assert changed(before, after) == set()
    permute(mnist_m / "mnist_m_test_labels.txt")
    keys = changed(after, run("data=mnist_mnistm")[1])
    assert not_allowed(keys) == set()
    assert any(key.startswith("predictions.") for key in keys)


def test_features_whose_file_holds_the_labels_too(tmp_path: Path, run: Callable) -> None:
    draw = np.random.default_rng(0)
    arrays = {}
    for name, count in (("source", 40), ("target", 40), ("target_test", 16)):
        labels = np.arange(count) % len(CLASSES)
        arrays[name] = (draw.normal(size=(count, 6)) + labels[:, None], labels)
        np.savez(tmp_path / f"{name}.npz", features=arrays[name][0], labels=labels)
    words = ["data=features", "backbone=mlp", "backbone.hidden=[8]"]
    words += [f"data.{d}.path={tmp_path / d}.npz" for d in ("source", "target")]
    words += [f"data.target.test={tmp_path / 'target_test'}.npz"]

    def permuted(name: str) -> None:
        features, labels = arrays[name]
        np.savez(tmp_path / f"{name}.npz", features=features, labels=labels[::-1])

    _, before = run(*words)
    permuted("target")
    _, after = run(*words)
    assert changed(before, after) == set()
    permuted("target_test")
    keys = changed(after, run(*words)[1])
    assert keys
    assert not_allowed(keys) == set()
