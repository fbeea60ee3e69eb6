import json
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.data_files import write_image
from tlrun.data.examples.decode import read_image
from tlrun.data.examples.fit import fit_image
from tlrun.data.examples.pixels import FilePixels
from tlrun.data.sets.folder import folder
from tlrun.errors import ConfigError, DataError


def everything(examples):
    return examples.read(torch.arange(len(examples)))


def test_a_folder_per_class(image_folder):
    root = image_folder("own", {"dog": 10, "cat": 10})
    parts = folder(root=str(root), size=12)
    assert parts.train.classes == ("cat", "dog")
    assert [len(parts.train), len(parts.val), len(parts.test)] == [14, 2, 4]
    for path, label, pixels in zip(
        parts.train.paths, parts.train.labels, everything(parts.train), strict=True
    ):
        assert parts.train.classes[label] in path
        assert np.array_equal(pixels.numpy(), read_image(path, 12, 3, "crop"))


@pytest.mark.parametrize("fit", ["crop", "squash", "shrink"])
def test_interpolation_holds_for_the_cache_and_for_files(image_folder, fit):
    root = str(image_folder("own", {"dog": 8, "cat": 8}))

    def read(interpolation, memory_gb):
        options = {"size": 9, "fit": fit, "memory_gb": memory_gb}
        train = folder(root=root, **options, **interpolation).train
        return train, everything(train)

    old, before = read({}, 2.0)
    checksums = set()
    for memory_gb in (2.0, 0.0):
        bicubic, pixels = read({"interpolation": "bicubic"}, memory_gb)
        assert bicubic.paths == old.paths
        with Image.open(bicubic.paths[0]) as image:
            want = np.asarray(fit_image(image.convert("RGB"), 9, fit, "bicubic"))
        assert np.array_equal(pixels[0].permute(1, 2, 0).numpy(), want)
        assert not torch.equal(pixels, before)
        for unsaid in ({}, {"interpolation": "auto"}, {"interpolation": "bilinear"}):
            plain, same = read(unsaid, memory_gb)
            assert torch.equal(same, before)
            assert plain.checksum != bicubic.checksum
            checksums.add(plain.checksum)
    assert len(checksums) == 2  # of pixels, and of files with the rules by which they are read


def test_order_is_by_content_so_moving_labels_moves_no_image(image_folder):
    root = image_folder("own", {"a": 8, "b": 8})
    before = folder(root=str(root), size=12)
    for i in range(4):  # swap half of the labels on disk
        shutil.move(root / "a" / f"{i}.png", root / "b" / f"x{i}.png")
        shutil.move(root / "b" / f"{i}.png", root / "a" / f"y{i}.png")
    after = folder(root=str(root), size=12)
    for split in ("train", "val", "test"):
        assert getattr(before, split).checksum == getattr(after, split).checksum
    assert not torch.equal(before.train.labels, after.train.labels)


def test_own_splits_and_separate_test(image_folder, tmp_path):
    for split, seed in (("train", 0), ("valid", 100), ("test", 200)):
        image_folder(f"own/{split}", {"a": 4, "b": 4}, seed)
    parts = folder(root=str(tmp_path / "own"), size=12)
    assert [len(s) for s in (parts.train, parts.val, parts.test)] == [8, 8, 8]
    flat = tmp_path / "flat"
    for i in range(6):
        write_image(flat / f"{i}.png", i)
    other = folder(root=str(flat), test={"root": str(tmp_path / "own" / "test")}, size=12)
    assert other.train.labels is None
    assert other.test.classes == ("a", "b")


def test_lists(tmp_path, no_data):
    for i in range(12):
        write_image(tmp_path / "images" / f"my {i}.png", i)
    labelled = tmp_path / "labelled.txt"
    labelled.write_text("# comment\n" + "".join(f"my {i}.png {i % 3 + 8}\n" for i in range(12)))
    parts = folder(list=str(labelled), root=str(tmp_path / "images"), size=12)
    assert parts.train.classes == ("8", "9", "10")  # numbers in their own order
    spaced = tmp_path / "images" / "spaced.txt"  # after a tab a label may hold spaces
    spaced.write_text("".join(f"my {i}.png\tpolar bear {i % 2}\n" for i in range(12)))
    assert folder(list=str(spaced), size=12).train.classes == ("polar bear 0", "polar bear 1")
    bare = tmp_path / "images" / "bare.txt"
    bare.write_text("".join(f"my {i}.png\n" for i in range(12)))
    assert folder(list=str(bare), size=12).test.labels is None


def test_a_file_that_a_list_names_twice(image_folder, caplog):
    root = image_folder("own", {"a": 5, "b": 5})
    lines = [f"{c}/{i}.png {c}" for c in "ab" for i in range(5)]
    listed = root / "list.txt"
    listed.write_text("\n".join([*lines, "a/0.png a", "b/../a/0.png a"]))
    parts = folder(list=str(listed), size=12, transductive=True)
    assert len(parts.train) == 10
    assert "repeats 2 of its images" in caplog.text
    listed.write_text("\n".join([*lines, "a/0.png b"]))
    with pytest.raises(DataError, match=r"gives '.*a/0\.png' the labels 'a' and 'b'"):
        folder(list=str(listed), size=12)


def test_mixed_kinds_and_modes(tmp_path, no_data):
    for c, seed in (("a", 0), ("b", 10)):
        write_image(tmp_path / "m" / c / "1.jpg", seed + 1, "RGB", (50, 30))
        write_image(tmp_path / "m" / c / "2.png", seed + 2, "RGBA", (16, 90))
        write_image(tmp_path / "m" / c / "3.png", seed + 3, "P")
        write_image(tmp_path / "m" / c / "4.PNG", seed + 4, "1")
        write_image(tmp_path / "m" / c / "5.bmp", seed + 5, "L")
    for channels in (1, 3):
        parts = folder(root=str(tmp_path / "m"), size=16, channels=channels, transductive=True)
        assert everything(parts.train).shape == (10, channels, 16, 16)


def test_above_the_budget_files_stay_files(image_folder):
    root = str(image_folder("own", {"a": 6, "b": 6}))
    small, large = folder(root=root, size=12), folder(root=root, size=12, memory_gb=1e-6)
    assert isinstance(large.train.pixels, FilePixels)
    assert torch.equal(everything(small.train), everything(large.train))
    assert torch.equal(small.train.labels, large.train.labels)
    assert "each decoded once" in large.card.notes[0]


def test_files_are_decoded_once_where_the_disk_may_keep_them(image_folder, monkeypatch):
    root = image_folder("own", {"a": 6, "b": 6})

    def build():
        return folder(root=str(root), size=12, memory_gb=1e-6, transductive=True)

    first, second = build(), build()
    want = everything(first.train)
    monkeypatch.setattr("tlrun.data.examples.pixels.read_image", None)  # nothing is decoded now
    assert torch.equal(everything(second.train), want)
    assert second.train.checksum == first.train.checksum
    monkeypatch.setenv("TLRUN_CACHE_GB", "0")
    none = build()
    assert none.train.pixels.kept is None
    assert "decoded each time they are seen" in none.card.notes[0]
    assert none.train.checksum == first.train.checksum


def test_decoded_once(image_folder, no_data):
    root = str(image_folder("own", {"a": 5, "b": 5}))
    folder(root=root, size=12)
    (cached,) = (no_data / "decoded").glob("*.npy")
    stamp = cached.stat().st_mtime_ns
    folder(root=root, size=12)
    assert cached.stat().st_mtime_ns == stamp
    folder(root=root, size=10)
    assert len([*(no_data / "decoded").glob("*.npy")]) == 2


def test_a_changed_image_is_noticed(image_folder):
    root = image_folder("own", {"a": 5, "b": 5})
    before = folder(root=str(root), size=12, transductive=True).train.checksum
    write_image(root / "a" / "0.png", 999)
    assert folder(root=str(root), size=12, transductive=True).train.checksum != before


def test_unreadable_image(image_folder, caplog):
    root = image_folder("own", {"a": 5, "b": 5})
    (root / "a" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0\.png.*skip_unreadable=true"):
        folder(root=str(root), size=12)
    with caplog.at_level(logging.WARNING, "tlrun"):
        parts = folder(root=str(root), size=12, skip_unreadable=True, transductive=True)
    assert len(parts.train) == 9
    assert "0.png" in caplog.text


def test_mistakes(tmp_path, image_folder):
    root = image_folder("own", {"a": 3, "b": 3})
    with pytest.raises(ConfigError, match=r"data\.target\.root=FOLDER"):
        folder(name="target")
    with pytest.raises(DataError, match=r"data\.source\.root=.*no such folder"):
        folder(name="source", root=str(tmp_path / "nowhere"))
    (root / "c").mkdir()
    with pytest.raises(DataError, match="class 'c' has no image"):
        folder(root=str(root))
    (root / "c").rmdir()
    write_image(root / "stray.png", 5)
    with pytest.raises(DataError, match="both in class folders and beside"):
        folder(root=str(root))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image in"):
        folder(root=str(tmp_path / "empty"))
    bad = root / "list.txt"
    bad.write_text("a/0.png x\na/9.png x\n")
    with pytest.raises(DataError, match=r"line 2: no image at .*9\.png"):
        folder(list=str(bad))
    bad.write_text("a/0.png x\na/1.png\n")
    with pytest.raises(DataError, match="label all or none"):
        folder(list=str(bad))
    with pytest.raises(ConfigError, match=r"data\.size"):
        folder(root=str(root), size=0)


def test_a_class_named_train_is_a_class(image_folder):
    root = image_folder("vehicles", {"bus": 6, "train": 6})
    assert folder(root=str(root), size=12).train.classes == ("bus", "train")


def test_splits_and_classes_side_by_side_are_refused(image_folder):
    root = image_folder("own", {"bus": 6})
    shutil.copytree(image_folder("more", {"a": 4, "b": 4}), root / "train")
    with pytest.raises(DataError, match="ambiguous"):
        folder(root=str(root), size=12)


# ---- copies -----------------------------------------------------------------------------------


def contents(examples):
    return {row.tobytes() for row in everything(examples).numpy()}


@pytest.mark.parametrize("seed", range(4))
def test_a_cut_keeps_one_copy_of_each_image(image_folder, caplog, seed):
    root = image_folder("own", {"a": 10, "b": 10})
    for i in range(10):
        shutil.copy(root / "a" / f"{i}.png", root / "a" / f"{i} (copy).png")
    parts = folder(root=str(root), size=12, seed=seed)
    sets = [parts.train, parts.val, parts.test]
    assert sum(len(s) for s in sets) == 20
    assert not contents(parts.train) & contents(parts.test)
    assert "10 of 30 train images are copies of others and left out" in caplog.text
    assert len(folder(root=str(root), size=12, transductive=True).train) == 30


def test_what_is_in_the_test_too_leaves_the_training_set(image_folder, tmp_path, caplog):
    image_folder("own/train", {"a": 6, "b": 6})
    image_folder("own/val", {"a": 2, "b": 2}, 50)
    root = tmp_path / "own"
    for old, new in (
        ("train/a/0.png", "test/a/x.png"),
        ("train/b/0.png", "test/b/x.png"),
        ("val/b/0.png", "test/b/y.png"),
        ("val/b/1.png", "train/b/y.png"),
    ):
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / old, root / new)
    parts = folder(root=str(root), size=12)
    assert [len(s) for s in (parts.train, parts.val, parts.test)] == [10, 3, 3]
    assert "2 of 13 train images are images of test too and left out" in caplog.text
    assert "1 of 13 train images are images of val too" in caplog.text
    assert "1 of 4 val images are images of test too" in caplog.text
    assert sum("left out" in note for note in parts.card.notes) == 3


def test_a_training_set_that_is_the_test_set(image_folder):
    root = str(image_folder("own", {"a": 3, "b": 3}))
    with pytest.raises(DataError, match=r"every training image.*transductive=true"):
        folder(root=root, test={"root": root}, size=12)
    parts = folder(root=root, test={"root": root}, size=12, transductive=True)
    assert len(parts.train) == len(parts.test) == 6


def test_equal_content_with_two_labels_is_refused(image_folder, tmp_path):
    root = image_folder("own", {"a": 5, "b": 5})
    shutil.copy(root / "a" / "1.png", root / "b" / "x.png")
    with pytest.raises(
        DataError, match=r"1 image has two labels: '.*a/1\.png' \(a\) and '.*b/x\.png' \(b\)"
    ):
        folder(root=str(root), size=12)
    (root / "b" / "x.png").unlink()
    shutil.copy(root / "a" / "1.png", write_image(tmp_path / "t" / "b" / "0.png", 77))
    write_image(tmp_path / "t" / "a" / "0.png", 78)
    with pytest.raises(DataError, match="two labels"):
        folder(root=str(root), test={"root": str(tmp_path / "t")}, size=12)


def test_a_set_without_labels_is_predicted_whole_copies_too(tmp_path, no_data):
    for i in range(4):
        write_image(tmp_path / "flat" / f"{i}.png", i)
    shutil.copy(tmp_path / "flat" / "0.png", tmp_path / "flat" / "copy.png")
    assert len(folder(root=str(tmp_path / "flat"), size=12).test) == 5


# ---- what is read and what is not ----------------------------------------------------------------


def test_hidden_folders_of_a_class_are_no_examples(image_folder, caplog):
    root = image_folder("own", {"a": 5, "b": 5})
    shutil.copytree(root / "a", root / "a" / ".ipynb_checkpoints")
    shutil.copytree(root / "b", root / "__MACOSX")
    shutil.copy(root / "a" / "0.png", root / "b" / "._0.png")
    parts = folder(root=str(root), size=12, transductive=True)
    assert len(parts.train) == 10
    assert parts.card.notes == ["left out: hidden: 3 (._0.png, .ipynb_checkpoints, __MACOSX)"]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_what_is_left_out_is_one_line(image_folder, caplog):
    root = image_folder("own", {"a": 5, "b": 5})
    (root / "a" / "scan.heic").write_bytes(b"x")
    (root / "labels.csv").write_text("x")
    (root / "b" / "gone.png").symlink_to(root / "nowhere.png")
    folder(root=str(root), size=12)
    assert (
        "left out: broken links: 1 (gone.png), not images: 2 (labels.csv, scan.heic)" in caplog.text
    )
    only = root / "c"
    only.mkdir()
    (only / "1.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"class 'c' has no image.*not images: 1 \(1\.heic\)"):
        folder(root=str(root), size=12)


def test_names_that_are_no_utf_8_work(image_folder, no_data):
    root = image_folder("own", {"a": 5, "b": 5})
    odd = os.path.join(os.fsencode(root), b"caf\xe9")
    os.rename(root / "b", odd)
    os.rename(os.path.join(odd, b"0.png"), os.path.join(odd, b"\xff.png"))
    for memory_gb in (2, 0):
        parts = folder(root=str(root), size=12, transductive=True, memory_gb=memory_gb)
        assert parts.train.classes == ("a", r"caf\xe9")
        assert any(p.endswith(r"caf\xe9/\xff.png") for p in parts.train.paths)
        json.dumps([parts.train.paths, parts.train.classes], ensure_ascii=False).encode("utf-8")


def test_in_a_list_a_hash_is_a_name_but_before_a_space(image_folder):
    root = image_folder("own", {"a": 5})
    (root / "a" / "0.png").rename(root / "#1.png")
    (root / "a" / "1.png").rename(root / "# 2.png")
    listed = root / "list.txt"
    listed.write_text("#1.png x\n# 2.png y\n# a comment\n#\na/2.png y\na/3.png x\na/4.png x\n")
    parts = folder(list=str(listed), size=12, transductive=True)
    assert len(parts.train) == 5
    listed.write_text("a/2.png y\n#3.png x\n")
    with pytest.raises(DataError, match=r"line 2: no image at .*#3\.png'.*# and a space"):
        folder(list=str(listed), size=12)
    pipe = root / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="no regular file"):
        folder(list=str(pipe), size=12)


# ---- layouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [("Train", "TEST", "Valid"), ("training", "Testing", "validation")]
)
def test_own_splits_in_any_case(image_folder, tmp_path, names):
    for k, split in enumerate(names):
        image_folder(f"own/{split}", {"a": 4 + k, "b": 4}, 100 * k)
    parts = folder(root=str(tmp_path / "own"), size=12)
    assert [len(s) for s in (parts.train, parts.test, parts.val)] == [8, 9, 10]
    assert parts.train.classes == ("a", "b")


def test_splits_that_nobody_can_tell(image_folder, tmp_path):
    for split in ("train", "Training", "test"):
        image_folder(f"twice/{split}", {"a": 2, "b": 2})
    with pytest.raises(DataError, match="two folders for train, 'Training' and 'train'"):
        folder(root=str(tmp_path / "twice"), size=12)
    image_folder("none/test", {"a": 2, "b": 2})
    with pytest.raises(DataError, match="holds test/ but no train/"):
        folder(root=str(tmp_path / "none"), size=12)
    image_folder("mixed", {"a": 2, "b": 2})
    image_folder("mixed/test", {"a": 2, "b": 2}, 50)
    with pytest.raises(DataError, match="ambiguous: test/ holds folders"):
        folder(root=str(tmp_path / "mixed"), size=12)


def test_folders_that_only_wrap_are_passed_through(image_folder, tmp_path):
    image_folder("a/photos/v1", {"cat": 5, "dog": 5})
    (tmp_path / "a" / "__MACOSX").mkdir()
    assert folder(root=str(tmp_path / "a"), size=12).train.classes == ("cat", "dog")
    for k, split in enumerate(("train", "test")):
        image_folder(f"b/photos/{split}/inner", {"cat": 5, "dog": 5}, 50 * k)
    parts = folder(root=str(tmp_path / "b"), size=12)
    assert (len(parts.train), len(parts.test)) == (10, 10)
    image_folder("c", {"cat": 5})  # a class, not a wrapper
    assert folder(root=str(tmp_path / "c"), size=12).train.classes == ("cat",)


def test_too_few_images_to_cut(tmp_path, no_data):
    write_image(tmp_path / "own" / "a" / "1.png", 0)
    write_image(tmp_path / "own" / "b" / "1.png", 1)
    with pytest.raises(DataError, match=r"\(2\): none is left for the test.*data\.target\.transd"):
        folder(root=str(tmp_path / "own"), size=12, name="target")
