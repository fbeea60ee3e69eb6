"""Several tasks on one backbone: losses by task, missing labels, phases, use of one task alone."""

import csv
import json

import pytest
import torch
from torch.nn.functional import cross_entropy, smooth_l1_loss

from helpers import sessions, small
from tlrun.config.compose import compose
from tlrun.errors import ConfigError
from tlrun.experiment.start import create_run_folder, run_experiment
from tlrun.inference.predict import load, main
from tlrun.methods.base import Progress
from tlrun.methods.query import Query
from tlrun.run_folder.run_dir import RunDir

DIGITS = ("data=digits_fours_nines", "backbone.dropout=0")
CANVAS = ("data=digits_canvas", "data.size=28", "backbone.dropout=0")
NAN = float("nan")


def ready(folder, *options):
    """(session with the parts of its first phase, a batch of each stream)."""
    session = small.session(folder, *options)
    phase = session.phases[0]
    session.method.build(phase, session.net, session.data)
    session.finish_build(session.net)
    streams = session.trainer().open_streams(phase)
    return session, {name: stream.batch(0) for name, stream in streams.items()}


def update(session, batch):
    (found,) = session.method.step(session.net.train(), batch, session.phases[0], Progress(0, 1))
    return found


def test_one_loss_for_each_task_on_images_of_its_own(tmp_path):
    session, batch = ready(tmp_path / "run", *DIGITS, "batch_norm=separate_forward")
    net, losses = session.net, update(session, batch).losses
    assert list(batch) == list(losses) == ["four", "nine"]
    for task, head in (("four", "head_four"), ("nine", "classifier")):
        logits = net[head](net.features(batch[task].x))
        torch.testing.assert_close(losses[task], cross_entropy(logits, batch[task].y))


def test_joint_batch_norm_sees_the_images_of_all_tasks(tmp_path):
    session, batch = ready(tmp_path / "run", *DIGITS)
    net, losses = session.net, update(session, batch).losses
    features = net.features(torch.cat([batch["four"].x, batch["nine"].x]))
    logits = net["head_four"](features[:8])
    torch.testing.assert_close(losses["four"], cross_entropy(logits, batch["four"].y))
    with pytest.raises(ConfigError, match="share batch statistics"):
        small.session(tmp_path / "other", *DIGITS, "batch_norm=per_domain")


def test_tasks_on_the_same_images_share_one_forward(tmp_path):
    session, batch = ready(tmp_path / "run", *CANVAS)
    net, drawn = session.net, batch["digit"]
    losses = update(session, batch).losses
    features = net.features(drawn.x)
    boxes = torch.sigmoid(
        net["head_place"].out(net["head_place"].fc2(net["head_place"].fc1(features)))
    )
    off = smooth_l1_loss(boxes, drawn.columns["box"], beta=0.1, reduction="none").sum(1).mean()
    torch.testing.assert_close(losses["place"], off)
    torch.testing.assert_close(losses["digit"], cross_entropy(net["classifier"](features), drawn.y))


def test_a_task_without_labels_in_the_batch_pulls_nothing(tmp_path):
    session, batch = ready(tmp_path / "run", *CANVAS)
    batch["digit"].columns["box"].fill_(NAN)
    found = update(session, batch)
    sum(found.losses.values()).backward()
    assert found.losses["place"] == 0
    assert all((p.grad == 0).all() for p in session.net["head_place"].parameters())
    assert any((p.grad != 0).any() for p in session.net["backbone"].parameters())


def test_alpha_shares_the_batch(tmp_path):
    session, batch = ready(tmp_path / "run", *DIGITS, "method.alpha=1")
    sizes = {name: len(drawn.x) for name, drawn in batch.items()}
    counts = session.data.facts.examples
    assert sum(sizes.values()) == 16  # twice trainer.batch_size
    assert sizes["nine"] == max(1, round(16 * counts["nine"] / sum(counts.values())))


def test_one_task_alone_and_what_it_leaves_out(tmp_path):
    session, batch = ready(tmp_path / "run", *DIGITS, "method.tasks=[four]")
    assert list(update(session, batch).losses) == ["four"]
    assert list(session.net.parts) == ["backbone", "head_four"]
    target = session.method.predict(session.net, batch["four"].x, Query())
    assert target.scores is None
    with pytest.raises(ConfigError, match="did you mean 'four'"):
        small.session(tmp_path / "other", *DIGITS, "method.tasks=[foor]")


def test_epochs_count_the_largest_or_the_smallest_set(tmp_path):
    for epoch, steps in (("max", 33), ("min", 3)):  # 258 and 20 images in batches of 8
        session = small.session(
            tmp_path / epoch,
            *DIGITS,
            f"method.epoch={epoch}",
            "trainer.steps=null",
            "trainer.epochs=1",
        )
        assert session.trainer().total_steps(session.phases[0]) == steps


def test_one_after_the_other_tunes_the_backbone_and_keeps_the_first_head(tmp_path):
    options = [*small.QUICK, *DIGITS, "method.order=sequential", "report=none"]
    run_experiment(create_run_folder(compose(options), tmp_path / "run", options))
    rows = [row for row in RunDir(tmp_path / "run").read_metrics() if row["split"] == "eval"]
    assert list(dict.fromkeys(row["phase"] for row in rows)) == ["four", "nine"]
    assert all(("task/nine" in row) == (row["phase"] == "nine") for row in rows)
    kept = tmp_path / "run" / "checkpoints"
    best, last = (torch.load(kept / f"{n}.pt", weights_only=True) for n in ("task_four", "last"))
    right = max(rows, key=lambda row: (row["task/four"], row["step"]))
    assert (best["phase"], best["step"]) == (right["phase"], right["step"])  # of all phases
    first = load(tmp_path / "run", task="four")  # though the head of the other may be missing
    assert set(first.net.parts) == set(best["parts"])
    if best["phase"] == "four":
        assert not torch.equal(
            best["parts"]["backbone"]["conv1.0.weight"], last["parts"]["backbone"]["conv1.0.weight"]
        )


def test_phases_of_the_sequence(tmp_path):
    options = ("method.order=sequential", "terms=[l2_sp]")
    session = small.session(tmp_path / "run", *DIGITS, *options)
    assert [(p.name, p.streams, p.terms, p.transfer) for p in session.phases] == [
        ("four", ("four",), False, False),
        ("nine", ("nine",), True, True),
    ]


@pytest.mark.parametrize("order", ["joint", "sequential"])
def test_a_kill_and_a_resume_equal_a_straight_run(order, tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "FEW", ())
    options = (*DIGITS, f"method.order={order}", "method.alpha=0.5", "backbone.dropout=0.5")
    at = 3 if order == "joint" else 8
    sessions.resumed_equals_straight(tmp_path, *options, at=at)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on canvases with the single tasks beside it."""
    options = [*small.QUICK, *CANVAS, "baseline=true", "trainer.steps=4", "trainer.eval_every=2"]
    path = tmp_path_factory.mktemp("multitask") / "run"
    run_experiment(create_run_folder(compose(options), path, options))
    return path


@pytest.fixture(scope="module")
def images(finished, tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    draws = torch.randint(256, (2, 28, 28), generator=torch.Generator().manual_seed(0))
    for name, pixels in zip("ab", draws.to(torch.uint8).numpy(), strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def test_every_task_has_a_checkpoint_and_a_baseline(finished):
    kept = {path.stem for path in (finished / "checkpoints").glob("*.pt")}
    assert {"task_digit", "task_place", "task_mean", "last"} <= kept
    summary = json.loads((finished / "summary.json").read_text())
    alone = {
        task: json.loads((finished / "baseline" / task / "summary.json").read_text())["selected"]
        for task in ("digit", "place")
    }
    assert summary["alone"] == {
        "digit": alone["digit"]["digit_test/accuracy"],
        "place": alone["place"]["place_test/iou"],
    }
    assert "place_test/iou" not in alone["digit"]
    assert "Every task alone, and with the others" in (finished / "report.html").read_text()


def test_a_task_is_used_alone(finished, images, tmp_path, capsys):
    best = torch.load(finished / "checkpoints" / "task_place.pt", weights_only=True)["parts"]
    place = load(finished, task="place")
    assert torch.equal(place.net["head_place"].out.weight, best["head_place"]["out.weight"])
    boxes = main(finished, [images], task="place", output=tmp_path / "boxes.csv")
    with torch.no_grad():
        expected = place(place.preprocess.read_files([images / "a.png"]))[0]
    assert boxes[0][1:] == pytest.approx(expected.tolist(), abs=1e-6)
    with (tmp_path / "boxes.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "left", "top", "right", "bottom"]
    assert [float(side) for side in rows[1][1:]] == pytest.approx(boxes[0][1:], abs=1e-6)
    assert main(finished, [images])[0].label in "0123456789"  # the target task
    assert "b.png" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"no task 'plce' in this run: did you mean 'place'"):
        main(finished, [images], task="plce")
    with pytest.raises(ConfigError, match="did not learn the task 'place'"):
        main(finished / "baseline" / "digit", [images], task="place")


def test_a_task_is_exported_alone(finished, images, tmp_path):
    from tlrun.inference.export import main as export

    path = export(finished, output=tmp_path / "place.pt2", task="place")
    place = load(finished, task="place")
    x = torch.randint(256, (3, 1, 28, 28), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(path).module()(x), place(x))


def test_a_method_without_baselines_says_so_before_it_trains(tmp_path):
    options = [*small.QUICK, "data=digits_episodes", "method=protonet", "baseline=true"]
    with pytest.raises(ConfigError, match="no baseline to train beside"):
        run_experiment(create_run_folder(compose(options), tmp_path / "run", options))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
