"""Two processes against one: what the terms remember is the same, and so is what they add."""

from helpers import sessions, small
from tlrun.config.compose import compose
from tlrun.engine import checkpoint
from tlrun.experiment.start import create_run_folder, run_experiment

FROM_A_SOURCE = (
    *sessions.FEW,
    "phases.source.steps=1",
    "terms=[l2_sp,lwf,delta,ewc]",
    "terms.l2_sp.alpha=0.5",
    "terms.ewc.images=10",
)
TWO_STEPS = (
    "trainer.steps=2",
    "optimizer=sgd",
    "optimizer.lr=0.1",
    "optimizer.momentum=0",
    "schedule=constant",
    "backbone.batch_norm=false",
    "evaluate.target_test=false",
    "report=none",
)


def last(folder, *overrides):
    words = [*small.QUICK, *TWO_STEPS, *overrides]
    run_dir = create_run_folder(compose(words), folder, words)
    run_experiment(run_dir)
    return checkpoint.load(run_dir.checkpoints / "last.pt")


def of_one_and_two(folder, *overrides):
    """The last checkpoint of each; their weights are the same."""
    one = last(folder / "one", *overrides)
    two = last(folder / "two", *overrides, "trainer.devices=2")
    for part, state in one["parts"].items():
        for key, value in state.items():
            assert float((value - two["parts"][part][key]).abs().max()) <= 1e-5, key
    return one["terms"], two["terms"]


def test_gradients_and_anchors_equal_those_of_one_process(tmp_path):
    """Mean losses and penalties alike: the second step is taken away from the anchor."""
    anchors = [terms["l2_sp"]["anchor"] for terms in of_one_and_two(tmp_path, *FROM_A_SOURCE)]
    for key, value in anchors[0].items():
        assert float((value - anchors[1][key]).abs().max()) <= 1e-6, key


def test_remembered_keys_equal_those_of_one_process(tmp_path):
    few = ("method=finetune", "init=scratch", "target_labels=2", "backbone.dropout=0")
    found = of_one_and_two(tmp_path, *few, "terms=[bi_tuning]")
    (a, b) = (terms["bi_tuning"]["queue"] for terms in found)
    assert a["seen"].sum() == 16
    assert a["seen"].equal(b["seen"])
    assert float((a["keys"] - b["keys"]).abs().max()) <= 1e-5
