"""Benchmark sets by name: every layout made of tiny pictures, splits, counts, messages."""

import dataclasses
import hashlib
import itertools
import json
import logging
import pickle
import socket
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from helpers.data_files import put, write_image
from tlrun.data.examples.fit import fit_arrays
from tlrun.data.sets.class_images import SETS, class_images
from tlrun.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def lines(path, *rows):
    return put(path, "".join(f"{row}\n" for row in rows).encode())


def pets(root):
    base = root / "oxford-iiit-pet"
    for split, each in (("trainval", 3), ("test", 2)):
        rows = []
        for number, breed in enumerate(("Abyssinian", "english_setter"), 1):
            for i in range(each):
                name = f"{breed}_{split}{i}"
                write_image(base / "images" / f"{name}.jpg", len(rows) + 10 * each)
                rows.append(f"{name} {number} {number} 1")
        lines(base / "annotations" / f"{split}.txt", *rows)


def flowers(root):
    base = root / "flowers-102"
    for i in range(1, 9):
        write_image(base / "jpg" / f"image_{i:05d}.jpg", i)
    savemat(base / "imagelabels.mat", {"labels": np.array([[1, 102, 1, 102, 1, 102, 1, 102]])})
    savemat(base / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[5, 6, 7, 8]]})


def dtd(root):
    base = root / "dtd" / "dtd"
    for s, split in enumerate(("train", "val", "test")):
        rows = [f"{c}/{c}_{split}{i}.jpg" for c in ("banded", "dotted") for i in range(2)]
        for i, row in enumerate(rows):
            write_image(base / "images" / row, 10 * s + i)
        for partition in (1, 2):
            lines(base / "labels" / f"{split}{partition}.txt", *rows[: 4 - partition + 1])


def pickled(path, content):
    return put(path, pickle.dumps(content))


def cifar10(root):
    base = root / "cifar-10-batches-py"
    pickled(base / "batches.meta", {"label_names": ["airplane", "automobile"]})
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        data = RNG.integers(0, 256, (2, 3072), dtype=np.uint8)
        pickled(base / name, {"data": data, "labels": [0, 1]})


def cifar100(root):
    base = root / "cifar-100-python"
    pickled(base / "meta", {"fine_label_names": ["apple", "bee"]})
    for name, count in (("train", 6), ("test", 2)):
        data = RNG.integers(0, 256, (count, 3072), dtype=np.uint8)
        pickled(base / name, {"data": data, "fine_labels": [0, 1] * (count // 2)})


def food101(root):
    base = root / "food-101"
    for s, split in enumerate(("train", "test")):
        names = {c: [f"{c}/{split}{i}" for i in range(3)] for c in ("apple_pie", "waffles")}
        for n, name in enumerate(itertools.chain(*names.values())):
            write_image(base / "images" / f"{name}.jpg", 10 * s + n)
        put(base / "meta" / f"{split}.json", json.dumps(names).encode())


def aircraft(root):
    data = root / "fgvc-aircraft-2013b" / "data"
    for level, classes in {
        "variant": ("707-320", "727-200"),
        "family": ("Boeing 707", "Boeing 727"),
        "manufacturer": ("Boeing",),
    }.items():
        plural = {"variant": "variants", "family": "families", "manufacturer": "manufacturers"}
        lines(data / f"{plural[level]}.txt", *classes)
        for s, split in enumerate(("train", "val", "test")):
            rows = [f"{100 * s + i:07d} {classes[i % len(classes)]}" for i in range(4)]
            for row in rows:
                write_image(data / "images" / f"{row[:7]}.jpg", int(row[:7]))
            lines(data / f"images_{level}_{split}.txt", *rows)


def stanford_cars(root):
    base = root / "stanford_cars"
    kind = [("fname", object), ("class", object)]
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], object)
    (base / "devkit").mkdir(parents=True)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    for s, (split, where) in enumerate(
        (("train", "devkit/cars_train_annos"), ("test", "cars_test_annos_withlabels"))
    ):
        rows = [(f"{i:05d}.jpg", 1 + i % 2) for i in range(1, 5)]
        for n, (name, _) in enumerate(rows):
            write_image(base / f"cars_{split}" / name, 10 * s + n)
        savemat(base / f"{where}.mat", {"annotations": np.array(rows, kind)})


def stl10(root):
    base = root / "stl10_binary"
    lines(base / "class_names.txt", "airplane", "bird")
    for split, count in (("train", 6), ("test", 4)):
        put(base / f"{split}_X.bin", RNG.integers(0, 256, (count, 3, 96, 96), np.uint8).tobytes())
        put(base / f"{split}_y.bin", bytes([1, 2] * (count // 2)))
    lines(base / "fold_indices.txt", "0 1 3", *["2 4"] * 9)


def eurosat(root):
    for c, name in enumerate(("AnnualCrop", "SeaLake")):
        for i in range(10):
            write_image(root / "eurosat" / "2750" / name / f"{name}_{i}.jpg", 10 * c + i)


def caltech101(root):
    base = root / "caltech101" / "101_ObjectCategories"
    for c, name in enumerate(("accordion", "yin_yang", "BACKGROUND_Google")):
        for i in range(1, 32 + c):
            write_image(base / name / f"image_{i:04d}.jpg", 100 * c + i)


def cub(root):
    base = root / "CUB_200_2011"
    birds = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    lines(base / "classes.txt", *(f"{i} {bird}" for i, bird in enumerate(birds, 1)))
    names = [f"{birds[i // 4]}/{birds[i // 4][4:]}_{i}.jpg" for i in range(8)]
    for i, name in enumerate(names):
        write_image(base / "images" / name, i)
    numbers = range(1, 9)
    lines(base / "images.txt", *(f"{i} {names[i - 1]}" for i in numbers))
    lines(base / "image_class_labels.txt", *(f"{i} {1 + (i - 1) // 4}" for i in numbers))
    lines(base / "train_test_split.txt", *(f"{i} {int(i % 4 != 0)}" for i in numbers))


def dogs(root):
    base = root / "stanford_dogs"
    for s, (split, count) in enumerate((("train", 3), ("test", 2))):
        names = [
            f"{breed}/{breed.partition('-')[0]}_{split}{i}.jpg"
            for breed in ("n02085620-Chihuahua", "n02085782-Japanese_spaniel")
            for i in range(count)
        ]
        for i, name in enumerate(names):
            write_image(base / "Images" / name, 10 * s + i)
        cells = np.array(names, object)[:, None]
        savemat(base / f"{split}_list.mat", {"file_list": cells, "labels": [[1], [2]]})


def imagenet(root):
    for s, (split, count) in enumerate((("train", 3), ("val", 2))):
        for c, synset in enumerate(("n01440764", "n01443537")):
            for i in range(count):
                seed = 100 * s + 10 * c + i
                write_image(root / "imagenet" / split / synset / f"{synset}_{i}.JPEG", seed)


# how the layout is made; its classes; images of train, val and test
LAYOUTS = {
    "pets": (pets, ("Abyssinian", "English Setter"), (6, None, 4)),
    "flowers": (flowers, 102, (2, 2, 4)),
    "dtd": (dtd, ("banded", "dotted"), (4, 4, 4)),
    "cifar10": (cifar10, ("airplane", "automobile"), (10, None, 2)),
    "cifar100": (cifar100, ("apple", "bee"), (6, None, 2)),
    "food101": (food101, ("apple_pie", "waffles"), (6, None, 6)),
    "aircraft": (aircraft, ("707-320", "727-200"), (4, 4, 4)),
    "stanford_cars": (
        stanford_cars,
        ("AM General Hummer SUV 2000", "Acura RL Sedan 2012"),
        (4, None, 4),
    ),
    "stl10": (stl10, ("airplane", "bird"), (6, None, 4)),
    "eurosat": (eurosat, ("AnnualCrop", "SeaLake"), (12, 4, 4)),
    "caltech101": (caltech101, ("accordion", "yin_yang"), (60, None, 3)),
    "cub": (cub, ("001.Black_footed_Albatross", "002.Laysan_Albatross"), (6, None, 2)),
    "dogs": (dogs, ("Chihuahua", "Japanese_spaniel"), (6, None, 4)),
    "imagenet": (imagenet, ("n01440764", "n01443537"), (6, None, 4)),
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data folder; torchvision takes files for the published ones."""
    for module in ("cifar", "flowers102", "stl10"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", lambda *_: True)
    monkeypatch.setenv("TLRUN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def load(name, **options):
    return class_images(set=name, size=12, download=False, **options)


def lengths(parts):
    sets = (parts.train, parts.val, parts.test)
    return tuple(None if examples is None else len(examples) for examples in sets)


def test_every_set_has_a_layout_here():
    assert set(LAYOUTS) == set(SETS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_published_layout(name, root):
    make, classes, counts = LAYOUTS[name]
    make(root)
    parts = load(name)
    if isinstance(classes, int):
        assert len(parts.train.classes) == classes
    else:
        assert parts.train.classes == classes
    assert lengths(parts) == counts
    assert parts.train.read(torch.arange(2)).shape == (2, 3, 12, 12)
    assert parts.train.labels.min() == 0
    assert parts.train.labels.max() == len(parts.train.classes) - 1
    published, read = SETS[name].counts["train"], counts[0]
    if SETS[name].protocol != "published":
        read = sum(filter(None, counts))
    assert f"{read:,} train images, not the published {published:,}" in parts.card.notes


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_counts_are_taken_without_a_word(name, root, monkeypatch, caplog):
    make, _, _ = LAYOUTS[name]
    make(root)
    parts = load(name)
    counts = {
        split: len(SETS[name].read(root / SETS[name].places[0], split, {}))
        for split in SETS[name].splits
    }
    row = dataclasses.replace(SETS[name], counts=counts, classes=len(parts.train.classes))
    monkeypatch.setitem(SETS, name, row)
    caplog.clear()
    assert load(name).card.notes == []
    assert not caplog.records


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_folder_of_a_set_may_have_any_name(name, root, tmp_path):
    LAYOUTS[name][0](root)
    mine = tmp_path / "of mine"
    (root / SETS[name].places[0]).rename(mine)
    with pytest.raises(DataError, match="is not on this machine"):
        load(name)
    parts = load(name, root=str(mine))
    assert lengths(parts) == LAYOUTS[name][2]
    if parts.train.paths:
        assert parts.train.paths[0].startswith(str(mine))


@pytest.mark.parametrize(
    ("name", "made", "place"),
    [
        ("aircraft", "fgvc-aircraft-2013b/data", "fgvc_aircraft"),
        ("aircraft", "fgvc-aircraft-2013b", "fgvc_aircraft"),
        ("cub", "CUB_200_2011", "CUB_200_2011/CUB_200_2011"),
        ("imagenet", "imagenet", "imagenet/images"),
        ("pets", "oxford-iiit-pet", "oxford_pets"),
        ("eurosat", "eurosat/2750", "EuroSAT_RGB"),
        ("caltech101", "caltech101/101_ObjectCategories", "caltech-101/101_ObjectCategories"),
        ("dtd", "dtd/dtd", "dtd"),
        ("stl10", "stl10_binary", "stl10/stl10_binary"),
    ],
)
def test_places_that_others_use(name, made, place, root, tmp_path):
    LAYOUTS[name][0](root)
    (root / made).rename(tmp_path / "moved")
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    if (root / place).is_dir():
        (root / place).rmdir()
    (tmp_path / "moved").rename(root / place)
    assert lengths(load(name)) == LAYOUTS[name][2]


def test_the_folder_around_the_data_of_aircraft(root):
    aircraft(root)
    parts = load("aircraft", root=str(root / "fgvc-aircraft-2013b"))
    assert lengths(parts) == LAYOUTS["aircraft"][2]


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_said_when_absent(name, root, tmp_path):
    row = SETS[name]
    with pytest.raises(DataError) as error:
        load(name)
    message = str(error.value)
    assert f"Put {row.places[0]}/{row.needs[0]}" in message
    assert row.url in message
    assert str(root) in message
    tmp_path.joinpath("empty").mkdir()
    with pytest.raises(DataError, match=r"data\.target\.root=.*empty does not hold"):
        load(name, root=str(tmp_path / "empty"))
    LAYOUTS[name][0](root)
    (root / row.places[0] / row.needs[-1]).rename(tmp_path / "moved")
    if len(row.needs) > 1:
        with pytest.raises(DataError, match=f"it lacks {row.needs[-1]}"):
            load(name)


def test_labels_belong_to_their_images(root):
    pets(root)
    parts = load("pets")
    for path, label in zip(parts.test.paths, parts.test.labels.tolist(), strict=True):
        breed = parts.test.classes[label].replace(" ", "_").lower()
        assert path.rpartition("/")[2].lower().startswith(f"{breed}_test")


def test_arrays_are_those_of_the_files(root):
    cifar10(root)
    parts = class_images(set="cifar10", size=32, download=False)
    with open(root / "cifar-10-batches-py" / "data_batch_3", "rb") as stream:
        written = pickle.load(stream)["data"].reshape(2, 3, 32, 32)
    assert np.array_equal(parts.train.read(torch.tensor([4, 5])).numpy(), written)


def test_arrays_are_enlarged_by_the_interpolation_asked_for(root):
    cifar10(root)
    options = {"set": "cifar10", "size": 40, "download": False}
    small = class_images(**{**options, "size": 32}).train.read(torch.arange(2)).numpy()
    plain = class_images(**options).train
    fine = class_images(interpolation="bicubic", **options).train
    for parts, how in ((plain, "bilinear"), (fine, "bicubic")):
        want = fit_arrays(small, 40, "crop", how)
        assert np.array_equal(parts.read(torch.arange(2)).numpy(), want)
    assert plain.checksum != fine.checksum


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_enlarged_arrays_beyond_memory_gb_stay_small(root, interpolation, monkeypatch, caplog):
    cifar10(root)
    options = {"set": "cifar10", "size": 40, "download": False, "interpolation": interpolation}
    kept = class_images(**options)
    whole = kept.train.read(torch.arange(10))
    caplog.clear()
    with caplog.at_level(logging.INFO), monkeypatch.context() as patch:
        all_at_once = "tlrun.data.sets.class_images.fit_arrays"
        patch.setattr(all_at_once, lambda *_: pytest.fail("all of them enlarged"))
        small = class_images(**options, memory_gb=12 * 3 * 40 * 40 / 1e9 - 1e-9)
    assert [m for m in caplog.messages if "exceed memory_gb" in m] == [
        "data.target: 12 images of 40 pixels exceed memory_gb=5.7599e-05: they stay as small as "
        "they are and are brought to size each time they are seen"
    ]
    assert not small.train.in_memory
    assert small.train.shape == (3, 40, 40)
    assert torch.equal(small.train.read(torch.tensor([7, 2])), whole[[7, 2]])
    assert torch.equal(small.train.labels, kept.train.labels)
    other = class_images(**{**options, "size": 48}, memory_gb=0)
    assert len({small.train.checksum, other.train.checksum, small.test.checksum}) == 3
    plain = class_images(**{**options, "size": 32}, memory_gb=0)  # nothing to enlarge
    assert plain.train.in_memory


def test_options_belong_to_sets(root):
    dtd(root)
    assert lengths(load("dtd", partition=2)) == (3, 3, 3)
    assert lengths(load("dtd", trainval=True)) == (8, None, 4)
    pets(root)
    aircraft(root)
    assert load("aircraft", level="family").train.classes == ("Boeing 707", "Boeing 727")
    manufacturer = load("aircraft", level="manufacturer")
    assert manufacturer.train.classes == ("Boeing",)
    stl10(root)
    assert lengths(load("stl10", fold=0)) == (3, None, 4)
    caltech101(root)
    assert lengths(load("caltech101", per_class=5)) == (10, None, 53)
    with pytest.raises(ConfigError, match="pets has no such choice"):
        load("pets", partition=2)
    with pytest.raises(ConfigError, match="no validation images"):
        load("pets", trainval=True)
    with pytest.raises(ConfigError, match="did you mean 'pets'"):
        load("pet")


def test_copies_in_two_published_splits_stay(root):
    pets(root)
    images = root / "oxford-iiit-pet" / "images"
    same = (images / "Abyssinian_trainval0.jpg").read_bytes()
    (images / "Abyssinian_test0.jpg").write_bytes(same)
    parts = load("pets")
    assert lengths(parts) == (6, None, 4)
    assert "1 test images are training images too, as published" in parts.card.notes


def test_a_damaged_list_names_the_folder(root):
    pets(root)
    lines(root / "oxford-iiit-pet" / "annotations" / "test.txt", "Abyssinian_1 one 1 1")
    with pytest.raises(DataError, match=r"oxford-iiit-pet' is damaged"):
        load("pets")


def test_cifar_is_unpickled_only_if_it_is_the_published_file(root, monkeypatch):
    cifar10(root)
    monkeypatch.undo()
    with pytest.raises(DataError, match="corrupted"):
        class_images(set="cifar10", root=str(root), download=False)


def test_no_download_without_an_answer(root, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(DataError, match=r"Downloads failed: .*no route to host") as error:
        class_images(set="pets", size=12)
    assert "Put oxford-iiit-pet/images" in str(error.value)
    assert not (root.parent / "cache" / "data" / "oxford-iiit-pet").exists()


def test_a_download_appears_when_it_is_complete(root, monkeypatch):
    """torchvision's own download, of a server that is made here."""
    monkeypatch.setattr("tlrun.data.sets.torchvision_sets.check_reachable", lambda _: None)

    def unpack(self):
        assert socket.getdefaulttimeout() is not None
        pets(self._base_folder.parent)
        if broken:
            raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr("torchvision.datasets.OxfordIIITPet._download", unpack)
    broken = True
    with pytest.raises(DataError, match="corrupted"):
        class_images(set="pets", size=12)
    place = root.parent / "cache" / "data" / "oxford-iiit-pet"
    assert not place.exists()
    broken = False
    parts = class_images(set="pets", size=12)
    assert lengths(parts) == (6, None, 4)
    assert parts.card.root == str(place)
    assert socket.getdefaulttimeout() is None
    assert [p.name for p in place.parent.iterdir() if p.is_dir()] == ["oxford-iiit-pet"]


def test_an_archive_that_torchvision_does_not_check(root, monkeypatch):
    monkeypatch.setattr("tlrun.data.sets.torchvision_sets.check_reachable", lambda _: None)
    content = b"an archive"

    def unpack(self):
        base = Path(self.root)
        aircraft(base)
        lines(base / "fgvc-aircraft-2013b" / "data" / "images_variant_trainval.txt")
        put(base / "fgvc-aircraft-2013b.tar.gz", content)

    monkeypatch.setattr("torchvision.datasets.FGVCAircraft._download", unpack)
    with pytest.raises(
        DataError, match=r"checksum \w+ instead of d4acdd33327262359767eeaa97a4f732"
    ):
        class_images(set="aircraft", size=12)
    row = dataclasses.replace(SETS["aircraft"], md5=hashlib.md5(content).hexdigest())
    monkeypatch.setitem(SETS, "aircraft", row)
    assert lengths(class_images(set="aircraft", size=12)) == LAYOUTS["aircraft"][2]


def test_stl10_is_turned_upright(root):
    stl10(root)
    base = root / "stl10_binary"
    image = np.zeros((3, 96, 96), np.uint8)
    image[0, 95, 0] = 255  # red, column 95, row 0
    put(base / "test_X.bin", image.tobytes())
    put(base / "test_y.bin", bytes([2]))
    parts = class_images(set="stl10", size=96, download=False)
    assert parts.test.read(torch.tensor([0]))[0, 0, 0, 95] == 255
    assert parts.test.labels.tolist() == [1]


def test_cub_follows_its_lists(root):
    cub(root)
    parts = load("cub")
    assert sorted(path.rpartition("_")[2] for path in parts.test.paths) == ["3.jpg", "7.jpg"]


def test_imagenet_as_kaggle_packs_it(root):
    imagenet(root)
    kaggle = root / "ILSVRC" / "Data"
    kaggle.mkdir(parents=True)
    place = (root / "imagenet").rename(kaggle / "CLS-LOC")
    rows = ["ImageId,PredictionString"]
    for i, file in enumerate(sorted((place / "val").rglob("*.JPEG")), 1):
        rows.append(f"ILSVRC2012_val_{i:08d},{file.parent.name} 1 2 30 40")
        file.rename(place / "val" / f"ILSVRC2012_val_{i:08d}.JPEG")
    for folder in (place / "val").iterdir():
        if folder.is_dir():
            folder.rmdir()
    with pytest.raises(DataError, match="images without their classes"):
        load("imagenet")
    lines(root / "LOC_val_solution.csv", *rows)
    parts = load("imagenet")
    assert parts.test.class_counts() == {"n01440764": 2, "n01443537": 2}


def test_a_draw_takes_as_many_of_each_class(root):
    caltech101(root)
    first, again, other = (load("caltech101", seed=s) for s in (0, 0, 1))
    assert first.train.class_counts() == {"accordion": 30, "yin_yang": 30}
    assert first.train.paths == again.train.paths != other.train.paths
    assert not set(first.train.paths) & set(first.test.paths)
    with pytest.raises(ConfigError, match=r"data\.target\.per_class=40: class 'accordion'"):
        load("caltech101", per_class=40)


def test_a_damaged_image_is_not_answered_with_a_key_that_these_sets_lack(root):
    pets(root)
    damaged = next((root / "oxford-iiit-pet" / "images").glob("*.jpg"))
    damaged.write_bytes(b"no image at all")
    with pytest.raises(DataError, match=r"repair or remove it\.") as error:
        load("pets")
    assert damaged.name in str(error.value)
    assert "skip_unreadable" not in str(error.value)
