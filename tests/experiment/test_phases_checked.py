"""What method and terms find lacking in a later phase is told before the first one is trained."""

import pytest

from helpers import small
from tlrun.errors import ConfigError
from tlrun.experiment.checks import check_phases

CARRIED = r"terms=\[{}\] needs weights that were carried over"
LABELS = r"terms=\[{}\] needs labelled target images"
HEAD = r"terms=\[{}\] needs the head that was learned on the source"


def session_of(folder, *words):
    return small.session(folder, "optimizer.weight_decay=0", *words)


@pytest.mark.parametrize(
    ("method", "term", "message"),
    [
        ("adda", "l2_sp", CARRIED),
        ("adda", "ewc", CARRIED),
        ("adda", "delta", CARRIED),
        ("adda", "lwf", HEAD),
        ("adda", "co_tuning", LABELS),
        ("adda", "vat", r"terms=\[{}\] judges images by backbone and classifier"),
        ("tent", "delta", LABELS),
        ("rotation", "ewc", HEAD),
        ("simclr", "lwf", HEAD),
        ("simclr", "co_tuning", HEAD),
        ("dann", "l2_sp", CARRIED),
    ],
)
def test_a_term_that_a_later_phase_gives_nothing(method, term, message, tmp_path):
    session = session_of(tmp_path / "run", f"method={method}", f"terms=[{term}]")
    with pytest.raises(ConfigError, match=message.format(term)):
        check_phases(session)


@pytest.mark.parametrize("term", ["l2_sp", "ewc", "lwf", "delta", "co_tuning", "bi_tuning"])
def test_what_is_carried_decides(term, tmp_path):
    words = ("method=finetune", f"terms=[{term}]", "target_labels=2")
    check_phases(session_of(tmp_path / "all", *words))
    none = session_of(tmp_path / "none", *words, "transfer.carry=[]")
    if term == "bi_tuning":  # it starts from any weights
        check_phases(none)
        return
    with pytest.raises(ConfigError, match=rf"terms=\[{term}\] needs"):
        check_phases(none)


@pytest.mark.parametrize("term", ["ewc", "lwf", "l2_sp"])
def test_earlier_tasks_count_as_carried(term, tmp_path):
    words = ("method=sequential", "data=digits_curriculum", f"terms=[{term}]")
    check_phases(session_of(tmp_path / "run", *words))


def test_nothing_of_the_net_is_changed(tmp_path):
    session = session_of(tmp_path / "run", "method=shot", "terms=[l2_sp]")
    before = {name: value.clone() for name, value in session.net.state_dict().items()}
    check_phases(session)
    assert session.net.state_dict().keys() == before.keys()
    assert session.net.carried == ()
    assert all(parameter.requires_grad for parameter in session.net.parameters())


def test_a_source_model_that_is_not_carried_over(tmp_path):
    session = session_of(tmp_path / "run", "method=shot", "transfer.reinit=[classifier]")
    with pytest.raises(ConfigError, match="no weights of the source for classifier"):
        check_phases(session)


def test_a_run_that_goes_on_is_not_asked_again(tmp_path):
    """It fetches no pretrained weights, and its checkpoint says what was carried over."""
    session = session_of(tmp_path / "run", "method=dann", "terms=[l2_sp]")
    (session.run_dir.checkpoints / "last.pt").touch()
    check_phases(session)
