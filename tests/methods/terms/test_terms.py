"""Terms: they join main updates of any method, with their own weight."""

import pytest
import torch

from helpers import small
from tlrun.errors import ConfigError
from tlrun.losses.entropy import entropy_loss
from tlrun.methods.base import DomainOutput, Update
from tlrun.methods.terms.bi_tuning import BiTuning
from tlrun.methods.terms.bss import BSS
from tlrun.methods.terms.co_tuning import CoTuning
from tlrun.methods.terms.delta import Delta
from tlrun.methods.terms.entropy import Entropy
from tlrun.methods.terms.ewc import EWC
from tlrun.methods.terms.l2_sp import L2SP
from tlrun.methods.terms.lwf import LwF


def test_the_entropy_term_is_its_weight_times_the_loss():
    logits = torch.randn(5, 4)
    update = Update({}, outputs={"target": DomainOutput(torch.zeros(5, 1), logits=logits)})
    (value,) = Entropy(weight=0.3).loss(update, None).values()
    assert float(value) == pytest.approx(0.3 * float(entropy_loss(logits)))


def test_a_method_without_target_images_is_told_so():
    with pytest.raises(ConfigError, match="needs the logits of target images"):
        Entropy().loss(Update({}, outputs={}), None)


def test_a_term_joins_a_run_from_the_command_line(tmp_path):
    session = small.session(tmp_path / "run", "terms=[entropy]", "terms.entropy.diversity=1")
    session.trainer().fit()
    rows = [row for row in session.run_dir.read_metrics() if row["split"] == "train"]
    assert all("loss/im" in row for row in rows)  # information maximisation
    assert session.terms["entropy"].diversity == 1


@pytest.mark.parametrize(
    ("term", "key", "value"),
    [
        (BSS, "weight", -1.0),
        (BiTuning, "keys", 0),
        (BiTuning, "momentum", 1.5),
        (CoTuning, "weight", -1.0),
        (Delta, "images", 0),
        (Delta, "alpha", -0.1),
        (EWC, "weight", -1.0),
        (EWC, "images", -5),
        (L2SP, "beta", -1.0),
        (LwF, "weight", float("nan")),
    ],
)
def test_a_negative_weight_or_size_is_refused(term, key, value):
    with pytest.raises(ConfigError, match=rf"^terms\.x\.{key}=.*: expected a (whole )?number from"):
        small.configured(term, "terms.x", **{key: value})
