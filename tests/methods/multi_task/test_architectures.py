"""What tasks share: every architecture against an independent calculation, and used by task."""

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from helpers import sessions, small
from tlrun.config.compose import compose
from tlrun.errors import ConfigError
from tlrun.experiment.start import create_run_folder, run_experiment
from tlrun.inference.export import main as export
from tlrun.inference.predict import load
from tlrun.methods.base import Progress
from tlrun.methods.query import Query

DIGITS = ("data=digits_fours_nines", "backbone.dropout=0")
CANVAS = ("data=digits_canvas", "data.size=28", "backbone.dropout=0")
SHARING = {
    "cross_stitch": ("method.stitch=0.8",),
    "mmoe": ("method.experts=3", "method.expert_units=7"),
    "cgc": ("method.experts=2", "method.task_experts=1", "method.expert_units=7"),
    "mtan": (),
}


def ready(folder, name, *options):
    """(session with the parts of its phase, a batch of each stream)."""
    words = (f"method.architecture={name}", *SHARING[name], *options)
    session = small.session(folder, *words)
    phase = session.phases[0]
    session.method.build(phase, session.net, session.data)
    session.finish_build(session.net)
    session.method.start(phase, session.net, session.data)
    streams = session.trainer().open_streams(phase)
    return session, {name: stream.batch(0) for name, stream in streams.items()}


def given(session, x, *tasks):
    """What the heads of the tasks are given in evaluation."""
    with torch.no_grad():
        return session.method.shared.features(session.net.eval(), x, tasks)


def vary(module):
    """Other numbers than those of the start, batch statistics included."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.add_(0.3 * noise)


def test_cross_stitch_mixes_the_columns_behind_every_stage(tmp_path):
    session, batch = ready(tmp_path / "run", "cross_stitch", *DIGITS)
    net, x = session.net, batch["nine"].x
    alpha = net["cross_stitch"].alpha
    start = torch.tensor([[0.8, 0.2], [0.2, 0.8]]).expand_as(alpha)
    torch.testing.assert_close(alpha.detach(), start)
    first, second = net["backbone"], net["column_nine"]
    same = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) and a is not b for a, b in same)
    vary(second)
    vary(net["cross_stitch"])
    found = given(session, x, "four", "nine")
    a = b = x
    with torch.no_grad():
        for i, stage in enumerate(first.stage_names):
            a, b = first.get_submodule(stage)(a), second.get_submodule(stage)(b)
            (aa, ab), (ba, bb) = alpha[i].tolist()
            a, b = aa * a + ab * b, ba * a + bb * b
    torch.testing.assert_close(found["four"], a.flatten(1))
    torch.testing.assert_close(found["nine"], b.flatten(1))


def test_without_a_stitch_the_columns_know_nothing_of_each_other(tmp_path):
    session, batch = ready(tmp_path / "run", "cross_stitch", *DIGITS, "method.stitch=1")
    vary(session.net["column_nine"])
    x = batch["four"].x
    with torch.no_grad():
        alone = session.net["backbone"].eval()(x)
    torch.testing.assert_close(given(session, x, "four")["four"], alone)


def mixed(features, experts, gate):
    """Σ_i softmax(W u)_i ReLU(A_i u + b_i), an image at a time."""
    rows = []
    for u in features:
        scores = [float(row @ u) for row in gate]
        powers = torch.tensor(scores).exp()
        weights = powers / powers.sum()
        made = [(layer.weight @ u + layer.bias).clamp(min=0) for layer in experts]
        rows.append(sum(w * h for w, h in zip(weights, made, strict=True)))
    return torch.stack(rows)


def layers(level, key):
    return [one[0] for one in level.experts[key]]


def test_every_gate_of_mmoe_mixes_the_same_experts(tmp_path):
    session, batch = ready(tmp_path / "run", "mmoe", *DIGITS)
    x = batch["four"].x
    found = given(session, x, "four", "nine")
    with torch.no_grad():
        u = session.net["backbone"](x)
        (level,) = session.net["experts"].levels
        assert not level.experts["task_four"]
        for task in ("four", "nine"):
            gate = level.gates[f"task_{task}"].linear.weight
            torch.testing.assert_close(found[task], mixed(u, layers(level, "shared"), gate))
    assert session.net["classifier"].fc1[0].in_features == 7


@pytest.mark.parametrize("levels", [1, 2])
def test_cgc_has_experts_of_the_task_and_ple_several_levels(tmp_path, levels):
    session, batch = ready(tmp_path / "run", "cgc", *DIGITS, f"method.levels={levels}")
    x = batch["four"].x
    found = given(session, x, "four", "nine")
    with torch.no_grad():
        u = session.net["backbone"](x)
        first, *rest = session.net["experts"].levels
        own = {t: layers(first, f"task_{t}") for t in ("four", "nine")}
        common = layers(first, "shared")
        gates = {key: gate.linear.weight for key, gate in first.gates.items()}
        now = {t: mixed(u, own[t] + common, gates[f"task_{t}"]) for t in own}
        assert ("shared" in gates) == (levels == 2)
        if rest:
            everyone = [*own["four"], *own["nine"], *common]
            shared = mixed(u, everyone, gates["shared"])
            (last,) = rest
            for t in own:
                gate = last.gates[f"task_{t}"].linear.weight
                weights = (now[t] @ gate.T).softmax(1)
                (mine,), both = layers(last, f"task_{t}"), layers(last, "shared")
                made = [(now[t] @ mine.weight.T + mine.bias).relu()]
                made += [(shared @ layer.weight.T + layer.bias).relu() for layer in both]
                now[t] = sum(weights[:, i : i + 1] * h for i, h in enumerate(made))
    for t in own:
        torch.testing.assert_close(found[t], now[t])


def normalised(layer, x, flat=False):
    """A 1x1 or 3x3 convolution and batch norm of evaluation, by their formulas."""
    convolution, norm = layer
    out = torch.nn.functional.conv2d(x, convolution.weight, padding=convolution.kernel_size[0] // 2)
    mean, var, scale, shift = (
        t.view(1, -1, 1, 1) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (out - mean) / (var + norm.eps).sqrt() * scale + shift


def test_mtan_masks_every_stage_of_one_pass(tmp_path):
    session, batch = ready(tmp_path / "run", "mtan", *CANVAS)
    net, x = session.net, batch["digit"].x
    vary(net["attention"])
    found = given(session, x, "digit", "place")
    backbone, attention = net["backbone"], net["attention"]
    with torch.no_grad():
        outputs = [x]
        for stage in backbone.stage_names:
            outputs.append(backbone.get_submodule(stage)(outputs[-1]))
        for task in ("digit", "place"):
            a = None
            for j, p in enumerate(outputs[1:]):
                mask = attention.masks[j][f"task_{task}"]
                seen = p
                if a is not None:
                    carried = normalised(attention.carry[j - 1], a).relu()
                    seen = torch.cat([p, adaptive_avg_pool2d(carried, p.shape[-2:])], 1)
                inner = normalised(mask.g, seen).relu()
                a = p / (1 + (-normalised(mask.h, inner)).exp())
            torch.testing.assert_close(found[task], a.flatten(1))


@pytest.mark.parametrize("name", SHARING)
def test_every_loss_reaches_what_is_shared(name, tmp_path):
    session, batch = ready(tmp_path / "run", name, *DIGITS)
    update = next(
        session.method.step(session.net.train(), batch, session.phases[0], Progress(0, 1))
    )
    for loss in update.losses.values():
        session.net.zero_grad()
        loss.backward(retain_graph=True)
        assert any(
            p.grad is not None and p.grad.any() for p in session.net["backbone"].parameters()
        )
    assert [out.features.shape[0] for out in update.outputs.values()] == [8, 8]


@pytest.mark.parametrize("name", SHARING)
def test_separate_forward_is_a_pass_for_each_set(name, tmp_path):
    options = (*DIGITS, "batch_norm=separate_forward")
    session, batch = ready(tmp_path / "run", name, *options)
    images = {domain: drawn.x for domain, drawn in batch.items()}
    tasks = session.method.tasks_of(session.phases[0])
    with torch.no_grad():
        both = session.method.task_features(session.net.eval(), images, tasks)
    for task in tasks:
        torch.testing.assert_close(both[task], given(session, images[task], task)[task])


@pytest.mark.parametrize("name", SHARING)
def test_a_task_is_used_and_exported_alone(name, tmp_path):
    words = (f"method.architecture={name}", *SHARING[name], "trainer.steps=2", "report=none")
    options = [*small.QUICK, *CANVAS, *words, "trainer.eval_every=2"]
    run_experiment(create_run_folder(compose(options), tmp_path / "run", options))
    place = load(tmp_path / "run", task="place")
    x = torch.randint(256, (3, 1, 28, 28), dtype=torch.uint8)
    with torch.no_grad():
        boxes = place(x)
        seen = place.method.predict(place.net, place.preprocess(x), Query(task="place"))
    assert boxes.shape == (3, 4)
    torch.testing.assert_close(boxes, seen.boxes)
    path = export(tmp_path / "run", output=tmp_path / "place.pt2", task="place")
    torch.testing.assert_close(torch.export.load(path).module()(x), boxes)


def test_a_kill_and_a_resume_equal_a_straight_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "FEW", ())
    options = (*DIGITS, "method.architecture=cross_stitch")
    sessions.resumed_equals_straight(tmp_path, *options, at=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("method.architecture=mtan", "method.tasks=[four]"), "four is alone"),
        (("method.architecture=cgc", "method.order=sequential"), "method.order=joint"),
        (("method.architecture=soft",), "method.architecture=soft"),
        (("method.architecture=mmoe", "method.experts=0"), "method.experts=0"),
    ],
)
def test_what_does_not_fit_is_named(options, message, tmp_path):
    def build():
        session = small.session(tmp_path / "run", *DIGITS, *options)
        session.method.build(session.phases[0], session.net, session.data)

    with pytest.raises(ConfigError, match=message):
        build()


def test_each_task_alone_has_a_plain_net(tmp_path):
    session = small.session(tmp_path / "run", *DIGITS, "method.architecture=cgc")
    found = session.method.baselines(session.data)
    assert all(keys["method.architecture"] == "hard" for keys in found.values())


@pytest.mark.parametrize("name", SHARING)
def test_a_balance_of_gradients_acts_on_what_is_shared(name, tmp_path):
    words = (f"method.architecture={name}", *SHARING[name], "balance=nash_mtl", "trainer.steps=2")
    session = small.session(tmp_path / "run", *DIGITS, *words)
    session.trainer().fit()
    assert all(p.isfinite().all() for p in session.net.parameters())
