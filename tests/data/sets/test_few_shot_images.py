"""Few-shot benchmarks by name: their layouts made of tiny pictures, class splits, messages."""

import hashlib
import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.data_files import put, write_image
from tlrun.data.sets.few_shot_images import CIFAR_FS, SETS, few_shot_images
from tlrun.errors import ConfigError, DataError
from tlrun.files.archives import load_pickle

RNG = np.random.default_rng(0)
SPLITS = ("train", "val", "test")
CLASSES = {"train": ("n01", "n02"), "val": ("n03",), "test": ("n04",)}  # of the ImageNets below
EACH = 3


def pictures(count, side=12):
    return RNG.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def pickled(path, content):
    return put(path, pickle.dumps(content))


def csv_and_images(base):
    for s, split in enumerate(SPLITS):
        rows = ["filename,label"]
        for c, name in enumerate(CLASSES[split]):
            for i in range(EACH):
                file = f"{name}{i:08d}.jpg"
                write_image(base / "images" / file, 100 * s + 10 * c + i)
                rows.append(f"{file},{name}")
        put(base / f"{split}.csv", "\n".join(rows).encode())


def folders(base):
    for s, split in enumerate(SPLITS):
        for c, name in enumerate(CLASSES[split]):
            for i in range(EACH):
                write_image(base / split / name / f"{i}.jpg", 100 * s + 10 * c + i)


def labels_of(split):
    return [name for name in CLASSES[split] for _ in range(EACH)]


def class_dict(base):
    for split in SPLITS:
        rows = {n: [*range(EACH * c, EACH * c + EACH)] for c, n in enumerate(CLASSES[split])}
        content = {"image_data": pictures(len(labels_of(split))), "class_dict": rows}
        pickled(base / f"mini-imagenet-cache-{split}.pkl", content)


def class_dict_of_learn2learn(base):
    class_dict(base)
    old = base / "mini-imagenet-cache-val.pkl"
    old.rename(base / "mini-imagenet-cache-validation.pkl")


def data_labels(base, pattern="miniImageNet_category_split_{}.pickle"):
    names = ("train_phase_train", "val", "test") if "mini" in pattern else SPLITS
    numbers = {"n01": 0, "n02": 1, "n03": 64, "n04": 80}
    for split, name in zip(SPLITS, names, strict=True):
        labels = labels_of(split)
        content = {
            b"data": pictures(len(labels)),
            b"labels": [numbers[y] for y in labels],
            b"catname2label": {n: numbers[n] for n in CLASSES[split]},
        }
        path = base / pattern.format(name)
        put(path, pickle.dumps(content, protocol=2))


def tiered_labels(base, split):
    labels = labels_of(split)
    numbers = np.array([CLASSES[split].index(y) for y in labels])
    content = {"label_specific": numbers, "label_specific_str": [*CLASSES[split]]}
    pickled(base / f"{split}_labels.pkl", content)
    return pictures(len(labels))


def tiered_npz(base):
    for split in SPLITS:
        images = tiered_labels(base, split)
        np.savez(base / f"{split}_images.npz", images=images)


def tiered_png(base):
    for split in SPLITS:
        packed = []
        for image in tiered_labels(base, split):
            out = io.BytesIO()
            Image.fromarray(image).save(out, "PNG")
            packed.append(np.frombuffer(out.getvalue(), np.uint8)[:, None])
        pickled(base / f"{split}_images_png.pkl", packed)


def cifar100(base):
    names = ["apple", "beaver", "whale", "dolphin"]
    pickled(base / "meta", {"fine_label_names": names})
    for name, count in (("train", 8), ("test", 4)):
        data = RNG.integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = [i % 4 for i in range(count)]
        pickled(base / name, {"data": data, "fine_labels": labels})


def cifar_lists(base):
    for s, split in enumerate(SPLITS):
        put(base / "splits" / "bertinetto" / f"{split}.txt", "\n".join(CLASSES[split]).encode())
        for c, name in enumerate(CLASSES[split]):
            for i in range(EACH):
                write_image(base / "data" / name / f"{i}.png", 100 * s + 10 * c + i)


def cifar_processed(base):
    folders(base / "processed")


def cifar_pickles(base):
    data_labels(base, "CIFAR_FS_{}.pickle")


def cub(base):
    birds = [f"{i:03d}.Bird_{i}" for i in range(1, 5)]
    lists = {"classes": birds, "images": [], "image_class_labels": [], "train_test_split": []}
    for n in range(12):
        name = f"{birds[n % 4]}/{n}.jpg"
        write_image(base / "images" / name, n)
        lists["images"].append(name)
        lists["image_class_labels"].append(n % 4 + 1)
        lists["train_test_split"].append(n % 2)
    for name, values in lists.items():
        rows = "".join(f"{i} {value}\n" for i, value in enumerate(values, 1))
        put(base / f"{name}.txt", rows.encode())


BIRDS = {
    "train": ("001.Bird_1", "003.Bird_3"),
    "val": ("002.Bird_2",),
    "test": ("004.Bird_4",),
}
OF_CIFAR = {"train": ("apple", "dolphin"), "val": ("beaver",), "test": ("whale",)}
LAYOUTS = [
    ("mini_imagenet", "mini_imagenet", csv_and_images, CLASSES),
    ("mini_imagenet", "mini-imagenet", folders, CLASSES),
    ("mini_imagenet", "miniImageNet", class_dict, CLASSES),
    ("mini_imagenet", "mini_imagenet", class_dict_of_learn2learn, CLASSES),
    ("mini_imagenet", "mini_imagenet", data_labels, CLASSES),
    ("tiered_imagenet", "tiered_imagenet", folders, CLASSES),
    ("tiered_imagenet", "tiered-imagenet", tiered_npz, CLASSES),
    ("tiered_imagenet", "tiered-imagenet", tiered_png, CLASSES),
    ("cifar_fs", "cifar-100-python", cifar100, OF_CIFAR),
    ("cifar_fs", "cifarfs", cifar_processed, CLASSES),
    ("cifar_fs", "cifarfs/cifar100", cifar_lists, CLASSES),
    ("cifar_fs", "CIFAR-FS", cifar_pickles, CLASSES),
    ("cub_episodes", "CUB_200_2011", cub, BIRDS),
]
each_layout = pytest.mark.parametrize(
    ("name", "place", "make", "classes"),
    LAYOUTS,
    ids=[f"{n}-{m.__name__}" for n, _, m, _ in LAYOUTS],
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data folder; torchvision takes files for the published ones."""
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    monkeypatch.setenv("TLRUN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def load(name, **options):
    return few_shot_images(set=name, size=12, download=False, **options)


@each_layout
def test_every_layout(name, place, make, classes, root):
    (root / place).mkdir(parents=True)
    make(root / place)
    parts = load(name)
    for examples, split in ((parts.base, "train"), (parts.val, "val"), (parts.novel, "test")):
        assert examples.classes == classes[split]
        assert len(examples) == EACH * len(classes[split])
        assert torch.bincount(examples.labels).tolist() == [EACH] * len(classes[split])
        assert examples.read(torch.arange(2)).shape == (2, 3, 12, 12)
    k = SETS[name].classes[0]
    assert f"2 train classes, not the published {k:,}" in parts.card.notes
    elsewhere = (root / place).rename(root / "of mine")
    assert load(name, root=str(elsewhere)).novel.classes == classes["test"]


@pytest.mark.parametrize("name", SETS)
def test_what_is_said_when_absent(name, root):
    with pytest.raises(DataError, match="is not on this machine") as error:
        load(name)
    assert SETS[name].layouts[0].needs[0] in str(error.value)
    assert SETS[name].url in str(error.value)
    root.mkdir()
    with pytest.raises(DataError, match=r"data\.classes\.root=.* does not hold"):
        load(name, root=str(root))


def test_a_wrong_name():
    with pytest.raises(ConfigError, match="mini_imagenet"):
        load("miniimagenet")


def test_the_class_lists_of_cifar_fs():
    """Hashes of the lists that pytorch-meta has (assets/cifar100/cifar-fs), sorted."""
    assert [len(CIFAR_FS[s]) for s in ("val", "test")] == [16, 20]
    assert not set(CIFAR_FS["val"]) & set(CIFAR_FS["test"])
    hashes = [hashlib.sha256(" ".join(sorted(CIFAR_FS[s])).encode()) for s in ("val", "test")]
    assert [h.hexdigest()[:16] for h in hashes] == ["a4d5a75dcb3fc7d1", "fa4f899ce87368b0"]


def test_pixels_and_labels_of_a_pickle_belong_together(root):
    base = root / "mini_imagenet"
    class_dict(base)
    with open(base / "mini-imagenet-cache-train.pkl", "rb") as stream:
        content = pickle.load(stream)
    content["class_dict"] = {"n01": [1, 3, 5], "n02": [0, 2, 4]}
    pickled(base / "mini-imagenet-cache-train.pkl", content)
    base_set = load("mini_imagenet").base
    assert base_set.labels.tolist() == [1, 0, 1, 0, 1, 0]
    written = content["image_data"].transpose(0, 3, 1, 2)
    assert np.array_equal(base_set.read(torch.arange(6)).numpy(), written)


def test_a_class_in_two_splits_is_refused(root):
    folders(root / "mini_imagenet")
    (root / "mini_imagenet" / "val" / "n03").rename(root / "mini_imagenet" / "val" / "n01")
    with pytest.raises(DataError, match="class 'n01' is in two"):
        load("mini_imagenet")


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickle_that_would_run_code_is_refused(root, capsys):
    base = root / "mini_imagenet"
    class_dict(base)
    pickled(base / "mini-imagenet-cache-val.pkl", {"image_data": Evil()})
    with pytest.raises(DataError, match=r"cache-val\.pkl.*it names builtins\.print"):
        load("mini_imagenet")
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_are_read_whatever_wrote_them(tmp_path, protocol):
    content = {
        "a": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "b": [1, 2.5, "text", b"\xff\x00", None, (True,)],
        "c": np.float32(1.5),
        "d": np.array(["x", None], dtype=object),
    }
    read = load_pickle(put(tmp_path / "x.pkl", pickle.dumps(content, protocol=protocol)))
    assert np.array_equal(read["a"], content["a"])
    assert read["b"] == content["b"]
    assert read["c"] == content["c"]
    assert read["d"].tolist() == ["x", None]
    with pytest.raises(DataError, match="damaged"):
        load_pickle(put(tmp_path / "cut.pkl", pickle.dumps(content, protocol=protocol)[:-20]))
