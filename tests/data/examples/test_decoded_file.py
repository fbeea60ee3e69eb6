"""Decoded images that are kept on the disk: the same pixels, whatever happens to the file."""

import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tlrun.data.examples import decoded_file
from tlrun.data.examples.decoded_file import SUM_BYTES, DecodedFile, limit_gb, why_not
from tlrun.errors import ConfigError

SHAPE = (3, 4, 4)
EACH = 48


class Decoder:
    """Pixels that follow from the row, and how often each row was decoded."""

    def __init__(self):
        self.calls = Counter()

    def __call__(self, row):
        self.calls[row] += 1
        return pixels_of(row)


def pixels_of(row):
    return np.random.default_rng(row).integers(0, 256, SHAPE, dtype=np.uint8)


def expected(rows):
    return np.stack([pixels_of(row) for row in rows])


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path))
    return lambda source="a", count=10: DecodedFile("set", source, count, SHAPE)


def test_each_image_is_decoded_once_for_all_processes(make):
    decode, other = Decoder(), Decoder()
    kept = make()
    for rows in ([3, 1, 3], [1, 9], [3]):
        assert np.array_equal(kept.read(rows, decode), expected(rows))
    assert decode.calls == {3: 1, 1: 1, 9: 1}
    for again in (make(), pickle.loads(pickle.dumps(kept))):  # as another process finds it
        assert np.array_equal(again.read([9, 1, 3], other), expected([9, 1, 3]))
    assert not other.calls


def test_another_source_has_a_file_of_its_own(make):
    make("a").read([0], Decoder())
    decode = Decoder()
    make("b").read([0], decode)
    make("a", 11).read([0], decode)
    assert decode.calls == {0: 2}


@pytest.mark.parametrize("harm", ["pixels", "sum", "cut", "half"])
def test_what_is_damaged_is_decoded_again(make, harm):
    kept = make()
    kept.read(range(10), Decoder())
    with open(kept.path, "r+b") as file:
        if harm == "cut":
            file.truncate(5 * EACH)
        else:
            file.seek({"pixels": 2 * EACH + 7, "sum": 10 * EACH + 2 * SUM_BYTES, "half": 0}[harm])
            file.write(b"\xff\x01\xfe" * (8 if harm == "half" else 1))
    decode, other = Decoder(), Decoder()
    assert np.array_equal(make().read(range(10), decode), expected(range(10)))
    assert set(decode.calls) == {"cut": set(range(10)), "half": {0}}.get(harm, {2})
    assert np.array_equal(make().read(range(10), other), expected(range(10)))
    assert not other.calls


def test_a_full_disk_is_no_fault_of_the_run(make, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoded_file.os, "pwrite", full)
    kept = make()
    for _ in range(2):
        assert np.array_equal(kept.read([0, 1], Decoder()), expected([0, 1]))
    assert caplog.text.count("kept no longer") == 1


def test_a_folder_that_cannot_be_written_keeps_nothing(make, tmp_path):
    (tmp_path / "decoded").write_text("in the way")
    decode = Decoder()
    assert np.array_equal(make().read([0, 0], decode), expected([0, 0]))
    assert decode.calls == {0: 2}


def test_those_used_longest_ago_are_removed(make, monkeypatch):
    count = 1000
    old, new = make("old", count), make("new", count)
    for age, kept in ((100, old), (200, new)):
        kept.read(range(count), Decoder())
        os.utime(kept.path, (age, age))
    monkeypatch.setenv("TLRUN_CACHE_GB", str(2.5 * old.nbytes / 1e9))
    make("newest", count).read([0], Decoder())
    assert not old.path.exists()
    assert new.path.exists()
    assert np.array_equal(old.read([5], Decoder()), expected([5]))  # who has it open reads on


def test_two_runs_over_the_limit_take_nothing_from_each_other(make, monkeypatch):
    count = 100
    one, two = make("one", count), make("two", count)
    monkeypatch.setenv("TLRUN_CACHE_GB", str(1.5 * one.nbytes / 1e9))
    decode = Decoder()
    for row in range(count):
        for kept in (one, two):
            assert np.array_equal(kept.read([row, 0], decode), expected([row, 0]))
    assert not one.path.exists()  # the second has begun later
    for kept in (one, two):
        assert np.array_equal(kept.read(range(count), decode), expected(range(count)))
    assert set(decode.calls.values()) == {2}  # by each of them once
    again = make("one", count)
    assert np.array_equal(again.read([7], decode), expected([7]))
    assert not two.path.exists()
    assert np.array_equal(two.read([7], decode), expected([7]))
    assert decode.calls[7] == 3


def test_a_file_that_another_run_has_just_removed_is_no_fault(make, monkeypatch):
    glob = Path.glob
    gone = lambda self, pattern: [*glob(self, pattern), self / "gone.u8"]  # noqa: E731
    monkeypatch.setattr(Path, "glob", gone)
    decode = Decoder()
    for _ in range(2):
        make().read([0], decode)
    assert decode.calls == {0: 1}


def test_the_limit(monkeypatch, tmp_path):
    monkeypatch.setenv("TLRUN_CACHE", str(tmp_path / "not" / "yet"))
    assert limit_gb() == 20
    assert why_not(int(1e6)) == ""
    assert "exceed TLRUN_CACHE_GB=20" in why_not(int(2.1e10))
    monkeypatch.setenv("TLRUN_CACHE_GB", "1e9")
    assert "do not fit on the disk" in why_not(int(1e17))
    for wrong in ("much", "-1", "nan", "inf"):
        monkeypatch.setenv("TLRUN_CACHE_GB", wrong)
        with pytest.raises(ConfigError, match="give the gigabytes"):
            limit_gb()
