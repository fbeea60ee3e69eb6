"""Files to pixels: the depth of grey, every mode, damaged files and pipes, warnings by name."""

import logging
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tlrun.data.examples import decode
from tlrun.data.examples.decode import FULL, extremes, grey_range, read_image
from tlrun.data.examples.fit import fit_image
from tlrun.data.pipeline.preprocess import Preprocess
from tlrun.data.sets.folder import folder
from tlrun.errors import ConfigError, DataError

TWELVE = np.array([[0, 1000], [2000, 4095]])  # 12 bits
SEEN = [0, 62, 125, 255]  # as 8 bits: 255 x / 4095


def saved(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(decode, "_said", set())


@pytest.mark.parametrize(
    ("name", "values", "seen"),
    [
        ("12 bits.png", TWELVE.astype(np.uint16), SEEN),
        ("12 bits.tif", TWELVE.astype(np.uint16), SEEN),
        ("big endian.tif", TWELVE.astype(">u2"), SEEN),
        ("int32.tif", TWELVE.astype(np.int32), SEEN),
        ("16 bits.png", (TWELVE * 16).astype(np.uint16), [0, 62, 125, 255]),
        ("8 bits in 16.png", np.array([[0, 64], [128, 255]], np.uint16), [0, 64, 128, 255]),
        ("up to 256.png", np.array([[0, 64], [128, 256]], np.uint16), [0, 32, 64, 128]),
        ("shares.tif", (TWELVE / 4095).astype(np.float32), SEEN),
        ("shares and more.tif", (TWELVE / 4000).astype(np.float32), SEEN),
        ("whole floats.tif", TWELVE.astype(np.float32), SEEN),
        ("with negatives.tif", (TWELVE - 1000).astype(np.float32), SEEN),
        ("holes.tif", np.array([[np.nan, 0], [0.5, np.inf]], np.float32), [0, 0, 128, 255]),
    ],
)
def test_grey_of_any_depth_under_the_rule_of_its_set(tmp_path, name, values, seen):
    path = saved(tmp_path / name, values)
    grey = grey_range([extremes(path)])
    for channels in (1, 3):
        got = read_image(path, 2, channels, "squash", grey=grey)
        assert got.tolist() == [np.reshape(seen, (2, 2)).tolist()] * channels


def test_one_rule_for_a_set_not_one_for_each_image(tmp_path):
    bright = saved(tmp_path / "a.png", TWELVE.astype(np.uint16))
    dark = saved(tmp_path / "b.png", (TWELVE // 4).astype(np.uint16))
    grey = grey_range([extremes(bright), extremes(dark)])
    assert grey == {"I": (0.0, 4095.0)}
    assert read_image(dark, 2, 1, "squash", grey=grey).ravel().tolist() == [0, 16, 31, 64]


def test_8_bits_have_no_rule_and_negative_tiffs_are_positive(tmp_path):
    plain = saved(tmp_path / "a.png", np.full((2, 2), 100, np.uint8))
    assert extremes(plain) is None
    assert grey_range([None]) == {}
    inverted = saved(tmp_path / "a.tif", TWELVE.astype(np.uint16), tiffinfo={262: 0})
    grey = grey_range([extremes(inverted)])
    assert read_image(inverted, 2, 1, "squash", grey=grey).ravel().tolist() == [255, 193, 130, 0]


def deep_folder(root, most=4095, count=10):
    for k in range(count):
        values = np.full((4, 4), most * (k + 1) // count, np.uint16)
        saved(root / "ab"[k % 2] / f"{k}.png", values)
    return root


def test_the_rule_of_a_folder_is_on_its_card_and_holds_for_cached_and_file_sets(tmp_path, no_data):
    root = str(deep_folder(tmp_path / "deep"))
    parts = folder(root=root, size=4, channels=1, transductive=True)
    assert parts.grey == {"I": (0.0, 4095.0)}
    assert "0 is black, 4095 is white" in parts.card.notes[0]
    values = sorted({int(v) for v in parts.train.data.flatten()})
    assert values == [round(255 * (4095 * k // 10) / 4095) for k in range(1, 11)]
    files = folder(root=root, size=4, channels=1, transductive=True, memory_gb=0)
    assert (files.train.read(parts.train.labels.argsort()) == parts.train.data).sum() > 0
    assert files.train.checksum != parts.train.checksum
    again = folder(root=root, size=4, channels=1, transductive=True, grey_values=[0, 8190])
    assert int(again.train.data.max()) == 128  # another rule, another cache
    for wrong in ([3, 3], [1], [5, 0]):
        with pytest.raises(ConfigError, match="grey_values"):
            folder(root=root, size=4, grey_values=wrong)


def test_predict_reads_by_the_rule_of_the_run(tmp_path, caplog):
    path = saved(tmp_path / "new.png", (TWELVE // 4).astype(np.uint16))
    spec = Preprocess((1, 2, 2), channels=1, grey={"I": (0, 4095)}).spec()
    assert spec["grey"] == {"I": [0.0, 4095.0]}
    assert Preprocess.from_spec(spec).read_files([path]).flatten().tolist() == [0, 16, 31, 64]
    assert not caplog.records
    spec.pop("grey")  # a run that saw 8 bits, or an older one
    for _ in range(2):
        Preprocess.from_spec(spec).read_files([path])
    (record,) = caplog.records
    assert "new.png': grey of more than 8 bits" in record.getMessage()
    assert FULL["I"] == (0, 65535)


def test_a_strip_costs_about_what_a_square_of_as_many_pixels_does(tmp_path):
    """A strip that is first made 64 high, then cut, costs two thousand times as much."""
    pixels = np.arange(60_000, dtype=np.uint8)
    strip = saved(tmp_path / "strip.png", pixels[None])
    square = saved(tmp_path / "square.png", pixels.reshape(240, 250))
    assert read_image(strip, 64, 3, "crop").shape == (3, 64, 64)
    assert cpu_seconds(strip) < 50 * cpu_seconds(square)


def cpu_seconds(path):
    """CPU time of reading the image, the least of five."""
    times = []
    for _ in range(5):
        begin = time.process_time()
        read_image(path, 64, 3, "crop")
        times.append(time.process_time() - begin)
    return min(times)


@pytest.mark.parametrize("shape", [(90, 40), (40, 90), (31, 32), (200, 7), (5, 6)])
def test_the_centre_is_that_of_the_whole_picture_made_small(shape):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8))
    scale = 28 / min(image.size)
    small = image.resize([max(28, round(s * scale)) for s in image.size], Image.Resampling.BILINEAR)
    left, top = (small.width - 28) // 2, (small.height - 28) // 2
    expected = np.asarray(small.crop((left, top, left + 28, top + 28)), int)
    assert abs(np.asarray(fit_image(image, 28, "crop"), int) - expected).max() <= 1


def test_transparency_lies_over_white_however_it_is_stored(tmp_path):
    half = Image.new("RGBA", (2, 2), (200, 100, 50, 128))
    half.save(tmp_path / "half.png")
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([200, 100, 50])
    palette.save(tmp_path / "index.png", transparency=0)
    palette.save(tmp_path / "bytes.png", transparency=bytes([128]))
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "key.png", transparency=(1, 2, 3))
    Image.new("LA", (2, 2), (100, 0)).save(tmp_path / "la.png")
    seen = {p.stem: read_image(p, 2, 3, "squash")[:, 0, 0].tolist() for p in tmp_path.iterdir()}
    assert seen["half"] == seen["bytes"] == [227, 177, 152]
    assert seen["index"] == seen["key"] == seen["la"] == [255, 255, 255]


@pytest.mark.parametrize("kind", ["pipe", "loop", "folder", "device"])
def test_only_regular_files_are_opened(tmp_path, kind):
    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"x\.png"):
        read_image(path, 4, 3, "crop")


def test_any_damage_is_one_sentence_and_no_program_is_run(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3)).astype(np.uint8)
    good = saved(tmp_path / "a.png", noise).read_bytes()
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n"
    for k, content in enumerate([b"", good[:40], good[: len(good) // 2], script]):
        path = tmp_path / f"bad{k}.png"
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"cannot read the image '.*bad{k}\.png'"):
            read_image(path, 4, 3, "crop")


def test_warnings_name_the_file_once_in_every_thread(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    path = saved(tmp_path / "big.png", np.zeros((2, 2, 3), np.uint8))
    with caplog.at_level(logging.WARNING, "tlrun"):
        threads = [threading.Thread(target=read_image, args=(path, 2, 3, "crop")) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (record,) = caplog.records
    assert record.getMessage().startswith(f"'{path}': Image size (4 pixels) exceeds limit")


@pytest.mark.parametrize(
    ("content", "why"), [(b"hello", "of no format that Pillow reads"), (b"", "it is empty")]
)
def test_what_is_no_image_is_named_once(tmp_path, content, why):
    file = tmp_path / "x.jpg"
    file.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_image(file, 8, 3, "crop")
    assert str(error.value) == f"cannot read the image '{file}' ({why}); repair or remove it."
