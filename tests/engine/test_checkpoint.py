"""Checkpoints: whole or not at all, at whatever moment the process dies."""

import os
import random

import numpy as np
import pytest
import torch

from tlrun.engine import checkpoint
from tlrun.errors import RunError


def state(step):
    return {"step": step, "parts": {"backbone": {"weight": torch.full((50,), float(step))}}}


def write(folder, step):
    checkpoint.save_last(folder, state(step), {"step": step})


def test_round_trip_and_sidecar(tmp_path):
    checkpoint.save(tmp_path / "best.pt", state(3), {"step": 3, "metric": "bnm"})
    assert checkpoint.load(tmp_path / "best.pt")["step"] == 3
    assert '"metric": "bnm"' in (tmp_path / "best.json").read_text()


def test_no_checkpoint_is_none_or_a_clear_error(tmp_path):
    assert checkpoint.load_last(tmp_path) is None
    with pytest.raises(RunError, match="no checkpoint"):
        checkpoint.load(tmp_path / "last.pt")


def test_the_newest_is_loaded_and_the_one_before_is_kept(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2)
    assert checkpoint.load_last(tmp_path)["step"] == 2
    assert checkpoint.load(tmp_path / "previous.pt")["step"] == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_newest_is_passed_over_with_a_warning(tmp_path, damage, caplog):
    write(tmp_path, 1)
    write(tmp_path, 2)
    path = tmp_path / "last.pt"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes({"flip": data, "cut": data[:-100], "empty": b""}[damage])
    assert checkpoint.load_last(tmp_path)["step"] == 1
    assert "damaged" in caplog.text


def test_all_damaged_is_an_error_and_never_a_silent_new_start(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "last.pt").write_bytes(b"x")
    with pytest.raises(RunError, match="every checkpoint"):
        checkpoint.load_last(tmp_path)


def test_a_crash_between_any_two_file_operations_loses_at_most_one_checkpoint(
    tmp_path, monkeypatch
):
    """Die after the n-th rename or write of the third save, for every n."""
    for survive in range(12):
        folder = tmp_path / str(survive)
        folder.mkdir()
        write(folder, 1)
        write(folder, 2)
        done = 0

        def dying(function):
            def wrapped(*arguments):
                nonlocal done
                if done == survive:  # noqa: B023
                    raise KeyboardInterrupt
                done += 1
                return function(*arguments)

            return wrapped

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying(os.replace))
            try:
                write(folder, 3)
                finished = True
            except KeyboardInterrupt:
                finished = False
        assert checkpoint.load_last(folder)["step"] in ({3} if finished else {2, 3})
        write(folder, 4)
        assert checkpoint.load_last(folder)["step"] == 4
        if finished:
            break
    assert finished
    assert survive >= 5


def test_a_full_disk_is_one_sentence_and_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    write(tmp_path, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"No space left.*intact"):
        write(tmp_path, 2)
    monkeypatch.undo()
    assert checkpoint.load_last(tmp_path)["step"] == 1


def test_random_states_come_back(tmp_path):
    checkpoint.save_last(tmp_path, {"random": checkpoint.rng_state()}, {})
    drawn = torch.rand(3), np.random.rand(3), random.random()
    checkpoint.set_rng_state(checkpoint.load_last(tmp_path)["random"])
    again = torch.rand(3), np.random.rand(3), random.random()
    assert torch.equal(drawn[0], again[0])
    assert (drawn[1] == again[1]).all()
    assert drawn[2] == again[2]


def candidate(folder, place):
    checkpoint.save_candidate(folder, place, state(place), {"step": place})


def listed(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_candidates_that_are_out_are_deleted(tmp_path):
    for place in (0, 1, 12):
        candidate(tmp_path, place)
    (tmp_path / "candidates" / ".0003.pt.tmp").write_bytes(b"x")  # a write that was cut off
    checkpoint.keep_candidates(tmp_path, {1, 2})
    assert listed(tmp_path) == ["candidates/0001.json", "candidates/0001.pt"]


def published(folder, place, **about):
    candidate_ = checkpoint.candidate_path(folder, place)
    return checkpoint.link_as(candidate_, folder / "bnm.pt", about)


def test_the_choice_of_a_rule_is_its_candidate_under_another_name(tmp_path):
    candidate(tmp_path, 3)
    for _ in range(2):  # again, as after a crash
        assert published(tmp_path, 3, step=3, phase="train", metric="bnm")
        assert checkpoint.load(tmp_path / "bnm.pt")["step"] == 3
    assert '"metric": "bnm"' in (tmp_path / "bnm.json").read_text()
    assert checkpoint.step_and_phase(tmp_path / "bnm.pt") == (3, "train")
    assert (tmp_path / "bnm.pt").samefile(checkpoint.candidate_path(tmp_path, 3))
    assert listed(tmp_path) == ["bnm.json", "bnm.pt", "candidates/0003.json", "candidates/0003.pt"]
    checkpoint.keep_candidates(tmp_path, set())
    assert checkpoint.load(tmp_path / "bnm.pt")["step"] == 3
    assert not (tmp_path / "candidates").exists()


def test_a_disk_without_links_gets_a_copy(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    candidate(tmp_path, 3)
    assert published(tmp_path, 3)
    assert checkpoint.load(tmp_path / "bnm.pt")["step"] == 3


def test_a_candidate_that_is_gone_or_half_written_is_not_published(tmp_path):
    candidate(tmp_path, 3)
    checkpoint.candidate_path(tmp_path, 3).with_suffix(".json").unlink()
    assert not published(tmp_path, 3)
    assert not published(tmp_path, 4)
    assert not (tmp_path / "bnm.pt").exists()
    assert checkpoint.step_and_phase(tmp_path / "bnm.pt") == (None, None)
