import logging
import shutil

import numpy as np
import pytest
import torch

from tests.data.conftest import write_image
from tlrun.data.fit import read_image
from tlrun.data.image_set import FileImageSet
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
    for c in "ab":
        write_image(tmp_path / "m" / c / "1.jpg", 1, "RGB", (50, 30))
        write_image(tmp_path / "m" / c / "2.png", 2, "RGBA", (16, 90))
        write_image(tmp_path / "m" / c / "3.png", 3, "P")
        write_image(tmp_path / "m" / c / "4.PNG", 4, "1")
        write_image(tmp_path / "m" / c / "5.bmp", 5, "L")
    for channels in (1, 3):
        parts = folder(root=str(tmp_path / "m"), size=16, channels=channels, transductive=True)
        assert everything(parts.train).shape == (10, channels, 16, 16)


def test_above_the_budget_files_stay_files(image_folder):
    root = str(image_folder("own", {"a": 6, "b": 6}))
    small, large = folder(root=root, size=12), folder(root=root, size=12, memory_gb=1e-6)
    assert isinstance(large.train, FileImageSet)
    assert torch.equal(everything(small.train), everything(large.train))
    assert torch.equal(small.train.labels, large.train.labels)
    assert "decoded by workers" in large.card.notes[0]


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
