"""Lock files: who waits, who is told, and what a place that cannot be written says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlrun.files.locks import LockTaken, file_lock


def test_a_lock_is_held_once_and_given_back(tmp_path: Path) -> None:
    with file_lock(tmp_path / "a.lock"):
        with pytest.raises(LockTaken), file_lock(tmp_path / "a.lock", seconds=0):
            pass
        with file_lock(tmp_path / "b.lock", seconds=0):
            pass
    with file_lock(tmp_path / "a.lock", seconds=0):
        pass


def test_a_fault_inside_gives_it_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), file_lock(tmp_path / "a.lock"):
        raise KeyError
    with file_lock(tmp_path / "a.lock", seconds=0):
        pass


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), file_lock(tmp_path / "file" / "a.lock"):
        pass
