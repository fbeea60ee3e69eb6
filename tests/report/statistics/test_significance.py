"""Paired tests over seeds: by hand, corrected, and said in words."""

import math
from pathlib import Path

import pytest

from helpers.run_folders import make_run
from tlrun.report.pages.write import find_jobs
from tlrun.report.read.run_record import read_record
from tlrun.report.statistics.leaderboard import Leaderboard, leaderboard_of
from tlrun.report.statistics.significance import holm, verdict

T_975_TWO_DEGREES = 4.302653


def board(
    path: Path, values: dict[str, tuple[float, ...]], data: str = "mnist_usps"
) -> Leaderboard:
    """A sweep of one data set: the final accuracy of each seed by method."""
    for method, finals in values.items():
        for seed, final in enumerate(finals):
            make_run(
                path / f"{data}_{method}{seed}",
                method=method,
                data=data,
                seed=seed,
                final=final,
                baseline=False,
                images=10,
                evaluations=1,
                saw_labels=method == "target_only",
            )
    return leaderboard_of([read_record(job) for job in find_jobs(path)])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.02]) == pytest.approx([0.9, 0.04])
    assert holm([0.7, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_every_pair_of_a_data_set_is_counted(tmp_path: Path) -> None:
    board(tmp_path, {"a": (0.9, 0.8, 0.7), "b": (0.8, 0.6, 0.4), "c": (0.5, 0.51, 0.53)})
    found = board(tmp_path, {"a": (0.9, 0.8), "b": (0.8, 0.6)}, data="usps_mnist")
    assert [one.tests for one in found.differences] == [1, 3, 3, 3, 1]  # the mean of both first
    first = found.differences[1]
    assert (first.first.method, first.second.method, first.n) == ("a", "b", 3)
    # Differences 0.1, 0.2, 0.3: their standard error is 0.1 / sqrt 3.
    half = T_975_TWO_DEGREES * 0.1 / math.sqrt(3)
    assert (first.low, first.high) == pytest.approx((0.2 - half, 0.2 + half))
    assert first.p is not None
    assert first.p_holm is not None
    assert first.p < first.p_holm <= 3 * first.p
    alone = found.differences[4]
    assert alone.p_holm == alone.p


def test_against_the_best_is_the_same_test_turned_round(tmp_path: Path) -> None:
    found = board(tmp_path, {"a": (0.9, 0.8, 0.7), "b": (0.8, 0.6, 0.4)})
    turned, straight = found.against_best(found.groups[1]), found.differences[0]
    assert turned is not None
    assert straight.low is not None
    assert (turned.mean, turned.high) == (-straight.mean, -straight.low)
    assert turned.text == f"-20.0 (p = {straight.p_holm:.3f}, n = 3)"
    assert found.against_best(found.groups[0]) is None


def test_in_words(tmp_path: Path) -> None:
    far = board(tmp_path / "far", {"a": (0.9, 0.8, 0.71), "b": (0.5, 0.4, 0.3)}).differences[0]
    assert far.clear
    assert "is larger than chance between seeds explains" in verdict(far)
    near = board(tmp_path / "near", {"a": (0.9, 0.5), "b": (0.6, 0.7)}).differences[0]
    assert not near.clear
    assert "could be chance" in verdict(near)
    assert "Two seeds are next to no evidence" in verdict(near)
    equal = board(tmp_path / "equal", {"a": (0.75, 0.5), "b": (0.5, 0.25)}).differences[0]
    assert equal.p_holm is None
    assert "no spread to test" in verdict(equal)
    single = board(tmp_path / "single", {"a": (0.9,), "b": (0.6,)})
    assert not single.differences  # no test for one seed
    only = single.against_best(single.groups[1])
    assert only is not None
    assert only.text == "-30.0 (no test, n = 1)"
    assert "there is no test" in verdict(only)


def test_who_saw_target_labels_is_never_the_best_beside_others(tmp_path: Path) -> None:
    found = board(tmp_path, {"a": (0.8, 0.7), "target_only": (0.95, 0.96)})
    assert [group.method for group in found.groups] == ["target_only", "a"]
    best = found.best("mnist_usps")
    assert best is not None
    assert best.method == "a"
    alone = board(tmp_path / "alone", {"target_only": (0.95, 0.96)})
    assert alone.best("mnist_usps") is alone.groups[0]
