"""Progressive learning and its sequence baseline on the bundled curriculum."""

import json
import re

import pytest
import torch

from helpers import small
from tlrun.config.build import build
from tlrun.engine import checkpoint
from tlrun.engine.hooks import Hooks
from tlrun.errors import ConfigError, Interrupted
from tlrun.evaluate.task_matrix import TaskMatrix
from tlrun.experiment.dry_run import dry_run
from tlrun.experiment.summary import conclude, write_surroundings
from tlrun.methods.query import Query
from tlrun.methods.terms.memory import FrozenCopy

DATA = ("data=digits_curriculum", "trainer.steps=3", "backbone.width=0.2", "trainer.batch_size=16")


def session(folder, *overrides):
    return small.session(folder, "method=progressive", *DATA, *overrides)


def probe(trained):
    examples = trained.data.role("ten_test")
    return trained.data.preprocess(examples.read(torch.arange(20)))


@pytest.mark.parametrize("lateral", ["adapters", "add", "concat", "none"])
def test_earlier_tasks_stay_as_they_were_to_the_bit(lateral, tmp_path):
    trained = session(tmp_path / "run", f"method.lateral={lateral}")
    x, seen = probe(trained), {}

    @torch.no_grad()
    def remember(_row):
        for task in trained.data.tasks:
            scores = trained.method.predict(trained.net, x, Query(task)).scores
            seen.setdefault(task, []).append(scores)

    trained.trainer(Hooks(after_evaluation=remember)).fit()
    net = trained.net.eval()
    with torch.no_grad():
        for task, k in (("zero", 1), ("zero_one", 3)):  # at the end of their phases
            end = trained.method.predict(net, x, Query(task)).scores
            assert torch.equal(end, seen[task][k])
    assert trained.evaluator.history(eval_rows(trained))["forgetting"] == {
        "zero": 0.0,
        "zero_one": 0.0,
    }


def eval_rows(trained):
    return [row for row in trained.run_dir.read_metrics() if row["split"] == "eval"]


def test_frozen_columns_have_no_gradient_and_no_drift(tmp_path):
    trained = session(tmp_path / "run", "backbone.batch_norm=true")
    trainer, before = trained.trainer(), {}
    start = trained.method.start

    def snapshot(phase, net, data):
        start(phase, net, data)
        if phase.name == "ten":
            before.update({k: v.clone() for k, v in net.state_dict().items()})

    trained.method.start = snapshot
    trainer.fit()
    after = trained.net.state_dict()
    old = [k for k in before if "_ten." not in k and "classifier" not in k]
    assert any("running_mean" in k for k in old)
    assert all(torch.equal(before[k], after[k]) for k in old)
    new = [k for k in before if "column_ten" in k and k.endswith("weight")]
    assert any(not torch.equal(before[k], after[k]) for k in new)


def test_without_the_freeze_earlier_columns_learn_too(tmp_path):
    trained = session(tmp_path / "run", "method.freeze=false")
    assert all(phase.frozen == () for phase in trained.phases)
    before, start = [], trained.method.start

    def snapshot(phase, net, data):
        start(phase, net, data)
        before.append(net["backbone"].conv1[0].weight.detach().clone())

    trained.method.start = snapshot
    trained.trainer().fit()
    assert not torch.equal(before[1], before[2])


@pytest.mark.parametrize(
    "options",
    [("method=progressive",), ("method=sequential", "transfer.freeze_carried=true")],
)
def test_a_run_that_is_stopped_in_a_later_phase_resumes_exactly(options, tmp_path):
    straight = small.session(tmp_path / "straight", *DATA, *options)
    straight.trainer().fit()
    broken = small.session(tmp_path / "broken", *DATA, *options, "trainer.checkpoint_every=1")
    trainer, step = broken.trainer(), broken.method.step

    def stopping(net, batch, phase, progress):
        if trainer.global_step == 4:  # in the second phase
            trainer.stop.exit_code = 143
        return step(net, batch, phase, progress)

    broken.method.step = stopping
    with pytest.raises(Interrupted):
        trainer.fit()
    again = small.session(tmp_path / "again", *DATA, *options, "trainer.checkpoint_every=1")
    again.run_dir = broken.run_dir
    again.trainer().fit()
    a, b = (checkpoint.load(s.run_dir.checkpoints / "last.pt")["parts"] for s in (straight, broken))
    for part, state in a.items():
        assert all(torch.equal(value, b[part][key]) for key, value in state.items()), part


def test_the_matrix_is_in_summary_table_and_picture(tmp_path):
    trained = session(tmp_path / "run")
    write_surroundings(trained)
    trained.trainer().fit()
    summary = conclude(trained)
    found = summary["task_matrix"]
    assert found["phases"] == found["tasks"] == ["zero", "zero_one", "ten"]
    assert found["values"][0][1:] == [None, None]
    assert found["parameters"] == sorted(found["parameters"])
    assert summary["mean_forgetting"] == 0
    names = {e["name"] for e in json.loads(trained.run_dir.pictures.read_text())}
    assert "task_matrix" in names
    assert "task_matrix" in trained.run_dir.tables.read_text()


def test_the_figures_of_a_matrix():
    def row(phase, *figures):
        named = {f"task/{t}": v for t, v in zip("abc", figures, strict=False)}
        return {"phase": phase, "parameters": 1, **named}

    rows = [row("a", 0.5), row("a", 0.9), row("b", 0.6, 0.8), row("c", 0.7, 0.85, 0.4)]
    matrix = TaskMatrix.of(rows, ["a", "b", "c"])
    assert matrix.values == [[0.9, None, None], [0.6, 0.8, None], [0.7, 0.85, 0.4]]
    assert matrix.forgetting() == pytest.approx({"a": 0.2, "b": -0.05})
    assert matrix.summary()["mean_forgetting"] == pytest.approx(0.075)
    assert matrix.on == "validation"
    assert TaskMatrix.of([row("train", 0.5)], ["a"]) is None


@pytest.mark.parametrize("term", ["none", "ewc", "lwf", "l2_sp"])
def test_a_sequence_with_conservative_terms(term, tmp_path):
    """Terms look back at every head that was learned before."""
    terms = [] if term == "none" else [f"terms=[{term}]"]
    trained = small.session(tmp_path / "run", "method=sequential", *DATA, *terms)
    trained.trainer().fit()
    assert set(trained.net.learned) == {"head_zero", "head_zero_one"}
    losses = {key for row in trained.run_dir.read_metrics() for key in row}
    assert term == "none" or losses & {f"loss/{term}", f"metric/{term}"}
    if term == "lwf":
        assert trained.terms["lwf"].heads == ["head_zero", "head_zero_one"]
    if term == "ewc":  # of both heads, each on the images of its own task
        fisher = trained.terms["ewc"].fisher
        assert all(float(fisher[k].sum()) > 0 for k in fisher if k.startswith("parts.head_"))


def test_lwf_keeps_the_answers_of_a_target_that_is_not_the_last_task(tmp_path):
    words = ("method=sequential", *DATA, "data.target=zero_one", "terms=[lwf]")
    trained = small.session(tmp_path / "run", *words)
    trained.trainer().fit()
    assert trained.terms["lwf"].heads == ["head_zero", "classifier"]


def test_lwf_sums_over_the_old_heads(tmp_path):
    trained = small.session(tmp_path / "run", "method=sequential", *DATA, "terms=[lwf]")
    trained.trainer().fit()
    net, term = trained.net.eval(), trained.terms["lwf"]
    teacher = FrozenCopy()
    teacher.load_state_dict(term.teacher.state_dict())
    x = probe(trained)
    batch = {"ten": trained.trainer().open_streams(trained.phases[-1])["ten"].batch(0)}
    update = next(iter(trained.method.step(net, batch, trained.phases[-1], None)))
    old, x = term.teacher.of(net), batch["ten"].x
    expected = 0.0
    for head in ("head_zero", "head_zero_one"):
        p = (old(x, head=head).logits / 2).softmax(1)
        q = (net(x, head=head).logits / 2).softmax(1)
        expected += (p * (p / q).log()).sum(1).mean().item()
    assert term.loss(update, net)["lwf"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", ["progressive", "sequential"])
def test_a_dry_run_steps_through_every_phase(method, tmp_path, capsys):
    dry_run(small.session(tmp_path / "run", f"method={method}", *DATA))
    shown = capsys.readouterr().out
    for task in ("zero", "zero_one", "ten"):
        assert re.search(rf"phase {task}: \w+ \d\.\d", shown), shown


def test_mistakes_are_explained():
    spec = {"_target_": "tlrun.methods.progressive.progressive.Progressive"}
    with pytest.raises(ConfigError, match="did you mean 'adapters'"):
        build({**spec, "lateral": "adapter"}, "method")
    with pytest.raises(ConfigError, match=r"method\.width=0: expected a number"):
        build({**spec, "width": 0}, "method")


@pytest.mark.parametrize("term", ["delta", "co_tuning"])
def test_a_term_that_knows_one_target_is_refused_before_anything_is_trained(term, tmp_path):
    with pytest.raises(ConfigError, match=rf"terms=\[{term}\] knows one target"):
        small.session(tmp_path / "run", "method=sequential", *DATA, f"terms=[{term}]")
