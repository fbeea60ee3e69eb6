"""A term that a phase has no images for is refused before anything is trained."""

import pytest

from helpers import small
from tlrun.errors import ConfigError


@pytest.mark.parametrize("term", ["mmd", "coral"])
@pytest.mark.parametrize(("method", "phase"), [("dirt_t", "refine"), ("shot", "target")])
def test_a_later_phase_without_the_source(method, phase, term, tmp_path):
    lacks = rf"terms=\[{term}\] needs source images .* phase {phase} of this method shows it none"
    with pytest.raises(ConfigError, match=lacks):
        small.session(tmp_path / "run", f"method={method}", f"terms=[{term}]")


def test_a_task_is_never_the_source(tmp_path):
    with pytest.raises(ConfigError, match=r"terms=\[mmd\] needs source images"):
        small.session(
            tmp_path / "run", "method=sequential", "data=digits_curriculum", "terms=[mmd]"
        )


@pytest.mark.parametrize("term", ["afn", "bnm", "bsp", "bss", "im", "lwf", "mcc", "vat"])
@pytest.mark.parametrize("order", ["joint", "sequential"])
def test_tasks_are_shown_by_their_names(order, term, tmp_path):
    words = ("data=digits_fours_nines", f"method.order={order}", f"terms=[{term}]")
    with pytest.raises(ConfigError, match=rf"terms=\[{term}\] needs (the \w+ of )?target images"):
        small.session(tmp_path / "run", "method=multitask", *words)


@pytest.mark.parametrize("term", ["bnm", "entropy", "mcc", "vat"])
def test_a_task_in_a_sequence_shows_no_logits(term, tmp_path):
    words = ("method=sequential", "data=digits_curriculum", f"terms=[{term}]")
    with pytest.raises(ConfigError, match=rf"terms=\[{term}\] needs the logits of target images"):
        small.session(tmp_path / "run", *words)


@pytest.mark.parametrize("term", ["coral", "mmd"])
def test_the_second_phase_of_adda_shows_the_target_alone(term, tmp_path):
    with pytest.raises(ConfigError, match=rf"terms=\[{term}\] needs source images .* adversarial"):
        small.session(tmp_path / "run", "method=adda", f"terms=[{term}]")


def test_a_label_update_shows_the_target_where_it_forwards_it(tmp_path):
    words = ("method=dann_alternating", "terms=[mcc]")
    with pytest.raises(ConfigError, match=r"terms=\[mcc\] needs target images"):
        small.session(tmp_path / "run", *words)
    assert small.session(tmp_path / "joint", *words, "batch_norm=joint").terms


@pytest.mark.parametrize("term", ["mcc", "bss", "lwf", "vat", "co_tuning", "bi_tuning"])
def test_a_method_without_the_target(term, tmp_path):
    asked = rf"terms=\[{term}\] needs target images .* or take method=source_and_target$"
    with pytest.raises(ConfigError, match=asked):
        small.session(tmp_path / "run", "method=source_only", f"terms=[{term}]")


@pytest.mark.parametrize("term", ["bi_tuning", "co_tuning"])
@pytest.mark.parametrize(
    ("method", "phase"),
    [
        ("dirt_t", "refine"),
        ("shot", "target"),
        ("tent", "target"),
        ("fixmatch_da", "train"),
        ("mme", "train"),
    ],
)
def test_a_phase_that_reads_no_label_of_the_target(method, phase, term, tmp_path):
    words = (f"method={method}", f"terms=[{term}]", "target_labels=2")
    lacks = rf"terms=\[{term}\] needs the labels of target .* phase {phase} of this method"
    with pytest.raises(ConfigError, match=lacks):
        small.session(tmp_path / "run", *words)


def test_a_method_without_steps(tmp_path):
    with pytest.raises(ConfigError, match=r"terms=\[mcc\] would join no phase.*leave them out"):
        small.session(tmp_path / "run", "method=adabn", "terms=[mcc]")


@pytest.mark.parametrize("term", ["mcc", "afn"])
def test_a_phase_that_it_does_not_join_may_lack_them(term, tmp_path):
    session = small.session(tmp_path / "run", "method=shot", f"terms=[{term}]")
    assert [phase.terms for phase in session.phases] == [False, True]
