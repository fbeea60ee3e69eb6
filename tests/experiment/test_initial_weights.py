"""Where a run's weights come from (`init=`), and what `transfer.*` makes of them, in whole runs."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from helpers import small
from tlrun.config.compose import compose
from tlrun.engine import checkpoint
from tlrun.engine.hooks import Hooks
from tlrun.errors import ConfigError, DataError, RunError
from tlrun.experiment.checks import check_phases
from tlrun.experiment.dry_run import dry_run
from tlrun.experiment.initial_weights import InitialWeights
from tlrun.experiment.start import create_run_folder, run_experiment
from tlrun.methods.base import Phase
from tlrun.methods.fine_tuning.finetune import Finetune
from tlrun.run_folder.run_dir import RunDir

QUICK = (*small.QUICK, "trainer.steps=2", "trainer.eval_every=2", "select=last")
NO_DECAY = "optimizer.weight_decay=0"
FINETUNE = ("method=finetune", "target_labels=2")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(name, *overrides) -> the folder of a whole run without its report."""
    monkeypatch.setattr("tlrun.experiment.lifecycle.show", lambda run_dir: None)

    def run(name, *overrides):
        words = [*QUICK, *overrides]
        run_dir = create_run_folder(compose(words), tmp_path / name, words)
        run_experiment(run_dir)
        return run_dir

    return run


def parts(run_dir):
    return checkpoint.load_last(run_dir.checkpoints)["parts"]


def begun(folder, *overrides):
    """(session, its weights at the first step): training is stopped before it."""
    session = small.session(folder, "trainer.steps=2", *overrides)
    held = {}

    def stop(_step):
        held.update({k: v.clone() for k, v in session.net.state_dict().items()})
        raise StopIteration

    with pytest.raises(StopIteration):
        session.trainer(Hooks(before_step=stop)).fit()
    return session, held


def fates(run_dir):
    return {row["stage"]: row for row in run_dir.read_json(run_dir.transfer, list)}


# ---- a file of weights ---------------------------------------------------------------------------


def test_a_stage_that_is_not_in_the_file_is_new_and_not_held_still(tmp_path):
    state = {k: v for k, v in small.net().backbone.state_dict().items() if "conv2" not in k}
    state["conv2.conv.weight"] = small.net().backbone.state_dict()["conv2.conv.weight"]
    torch.save(state, tmp_path / "part.pth")
    words = (*FINETUNE, f"init={tmp_path}/part.pth", "transfer.freeze_carried=true")
    session, held = begun(tmp_path / "run", *words)
    found = fates(session.run_dir)
    first = found["backbone.conv1"]
    assert (first["origin"], first["frozen"]) == ("carried", True)
    second = found["backbone.conv2"]
    assert (second["origin"], second["frozen"]) == ("new", False)
    assert second["why"] == "no 'conv2.norm.running_mean' in the file"
    key = "conv2.conv.weight"  # what the file does have of it is kept
    assert torch.equal(held[f"parts.backbone.{key}"], state[key])


# ---- init=RUN_DIR --------------------------------------------------------------------------------


def test_another_run_gives_its_weights(run, tmp_path):
    source = run("source", "method=source_only")
    session, held = begun(tmp_path / "run", *FINETUNE, f"init={source.path}")
    assert [phase.name for phase in session.phases] == ["target"]
    for part, state in parts(source).items():
        for key, value in state.items():
            assert torch.equal(held[f"parts.{part}.{key}"], value), key
    assert {row["origin"] for row in fates(session.run_dir).values()} == {"carried"}


def test_of_another_run_it_is_the_selected_checkpoint(run, tmp_path):
    source = run(
        "source",
        "method=source_only",
        "select=source_accuracy",
        "select.min_effective_classes=0",
        "select.source_floor=0",
    )
    kept = source.checkpoints / "source_accuracy.pt"
    state = checkpoint.load(kept)
    state["parts"]["classifier"]["out.bias"].fill_(7.0)  # to tell it from the last one
    checkpoint.save(kept, state, {})
    _, held = begun(tmp_path / "run", *FINETUNE, f"init={source.path}")
    assert held["parts.classifier.out.bias"].eq(7.0).all()


def test_cut_carries_the_first_stages_and_freezes_them_if_asked(run, tmp_path):
    source = run("source", "method=source_only")
    keys = (*FINETUNE, f"init={source.path}", "transfer.cut=2")
    session, held = begun(tmp_path / "run", *keys, "transfer.freeze_carried=true")
    table = fates(session.run_dir)
    assert [row["origin"] for row in table.values()] == ["carried"] * 2 + ["new"] * 3
    assert [row["frozen"] for row in table.values()] == [True] * 2 + [False] * 3
    theirs = parts(source)
    assert torch.equal(
        held["parts.backbone.conv2.conv.weight"], theirs["backbone"]["conv2.conv.weight"]
    )
    assert not torch.equal(held["parts.classifier.out.weight"], theirs["classifier"]["out.weight"])
    tuned, _ = begun(tmp_path / "tuned", *keys)
    assert not any(row["frozen"] for row in fates(tuned.run_dir).values())


def test_an_output_layer_of_other_classes_is_not_carried_though_they_are_as_many(run, tmp_path):
    source = run("source", "method=source_only")
    space = source.read_json(source.label_space)
    source.label_space.write_text(json.dumps({**space, "classes": list("abcdefghij")}))
    session, held = begun(tmp_path / "run", *FINETUNE, f"init={source.path}")
    table = fates(session.run_dir)
    assert table["classifier.out"]["why"] == "of other classes there"
    assert {row["origin"] for name, row in table.items() if name != "classifier.out"} == {"carried"}
    theirs = parts(source)["classifier"]
    assert not torch.equal(held["parts.classifier.out.weight"], theirs["out.weight"])
    assert torch.equal(held["parts.classifier.fc1.linear.weight"], theirs["fc1.linear.weight"])


def test_a_folder_that_is_no_run_is_refused_at_once(tmp_path):
    with pytest.raises((ConfigError, RunError), match="nowhere"):
        small.session(tmp_path / "run", *FINETUNE, f"init={tmp_path / 'nowhere'}")


def test_once_trained_it_needs_the_other_run_no_more(run, tmp_path):
    source = run("source", "method=source_only")
    tuned = run("tuned", *FINETUNE, f"init={source.path}")
    shutil.rmtree(source.path)
    from tlrun.experiment.evaluate import evaluate
    from tlrun.inference.predict import load

    summary = tuned.read_json(tuned.summary)
    figures = evaluate(tuned.path)
    assert figures["target_test/accuracy"] == summary["selected"]["target_test/accuracy"]
    assert load(tuned.path).classes == tuple("0123456789")


# ---- source, scratch, pretrained ----------------------------------------------------------------


def test_source_has_a_phase_of_its_own_and_carries_its_weights(tmp_path):
    session = small.session(tmp_path / "run", *FINETUNE, "trainer.steps=2")
    assert [(p.name, p.streams) for p in session.phases] == [
        ("source", ("source",)),
        ("target", ("target",)),
    ]
    session.trainer().fit()
    assert {row["origin"] for row in fates(session.run_dir).values()} == {"carried"}
    assert session.net.carried == tuple(session.net.stages())


def test_scratch_has_no_source_phase_and_nothing_to_carry(tmp_path):
    session, _ = begun(tmp_path / "run", *FINETUNE, "init=scratch")
    assert [phase.name for phase in session.phases] == ["target"]
    assert {row["why"] for row in fates(session.run_dir).values()} == {"nothing to carry"}
    assert session.net.carried == ()


def test_a_source_phase_is_refused_to_a_method_without_one(tmp_path):
    with pytest.raises(ConfigError, match="init=source needs a method with a source phase"):
        small.session(tmp_path / "run", "method=source_only", "init=source")


@pytest.mark.parametrize("method", ["finetune", "adda", "shot", "deep_jdot"])
def test_the_baseline_of_a_run_with_a_source_phase_has_none(method, tmp_path):
    session = small.session(tmp_path / "run", f"method={method}", "init=source")
    (changes,) = session.method.baselines(session.data).values()
    assert changes["method"] == "source_only"
    assert changes["init"] == "auto"


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (
            ("backbone=conv4", "backbone.pools=2"),
            "it is dann_cnn: give backbone=dann_cnn",
        ),
        (("backbone.width=0.3",), r"it is another dann_cnn: give backbone.width=0\.1"),
    ],
)
@pytest.mark.parametrize(
    "method", [("method=source_only",), ("method=shot",), (*FINETUNE, "terms=[l2_sp]", NO_DECAY)]
)
def test_a_run_of_another_backbone_is_refused_before_training(run, tmp_path, method, words, fix):
    init = f"init={run('source', 'method=source_only').path}"
    check_phases(small.session(tmp_path / "same", *method, init))
    session = small.session(tmp_path / "other", *method, init, *words)
    for start in (check_phases, dry_run, lambda session: session.trainer().fit()):
        with pytest.raises(
            ConfigError, match=f"init=.*: the backbone of that run does not fit, since {fix}"
        ):
            start(session)


def test_a_run_of_another_backbone_may_give_its_head(run, tmp_path):
    source = run("source", "method=source_only")
    words = (*FINETUNE, f"init={source.path}", "backbone.width=0.3")
    session, _ = begun(tmp_path / "head", *words, "transfer.carry=[classifier]")
    assert {row["origin"] for row in fates(session.run_dir).values()} == {"carried", "new"}
    source.config.write_text(source.config.read_text().replace("width: 0.1", "width: 0.3"))
    session = small.session(tmp_path / "all", *words)
    with pytest.raises(ConfigError, match=r"does not fit, backbone\.conv1: of another shape there"):
        check_phases(session)


def test_a_rule_of_tasks_is_refused_where_there_are_none(tmp_path):
    with pytest.raises(ConfigError, match="select=task_mean is for data of several tasks"):
        small.session(tmp_path / "run", "method=source_only", "select=task_mean")


@pytest.fixture
def hub(monkeypatch):
    """Stands for torchvision's download: what was asked for; the weights are all 0.5."""
    import torchvision

    asked = []
    get_model = torchvision.models.get_model

    def fake(name, weights=None, **options):
        model = get_model(name, weights=None, **options)
        if weights is not None:
            asked.append(weights)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.fill_(0.5)
        return model

    monkeypatch.setattr(torchvision.models, "get_model", fake)
    reached = "tlrun.models.torchvision_backbones.why_unreachable"
    monkeypatch.setattr(reached, lambda url: None)
    return asked


def resnet(folder, *overrides):
    quick = [word for word in small.QUICK if word != "backbone.width=0.1"]
    from tlrun.config.build import plain
    from tlrun.experiment.assemble import open_session
    from tlrun.experiment.auto import resolve_auto

    words = [*quick, *FINETUNE, "backbone=resnet18", "data.size=32", "trainer.steps=1", *overrides]
    run_dir = RunDir.create(folder)
    run_dir.checkpoints.mkdir(exist_ok=True)
    return open_session(run_dir, plain(resolve_auto(compose(words))))


def test_pretrained_takes_the_default_weights_and_carries_the_backbone_alone(hub, tmp_path):
    session = resnet(tmp_path / "run", "init=pretrained", "transfer.reinit=[backbone.layer4]")
    assert hub == ["DEFAULT"]
    assert [phase.name for phase in session.phases] == ["target"]
    check_phases(session)
    before = {k: v.clone() for k, v in session.net["backbone"].state_dict().items()}
    session.carry_over(0, set(session.net.parts))
    assert hub == ["DEFAULT"]  # what starts anew is drawn, not fetched
    assert session.net.carried == tuple(f"backbone.{s}" for s in ("conv1", "bn1", *LAYERS[:3]))
    after = session.net["backbone"].state_dict()
    assert torch.equal(before["conv1.weight"], after["conv1.weight"])
    assert before["layer4.0.conv1.weight"].eq(0.5).all()
    assert not after["layer4.0.conv1.weight"].eq(0.5).any()


LAYERS = ("layer1", "layer2", "layer3", "layer4")


@pytest.mark.parametrize("init", ["scratch", "pretrained"])
def test_init_wins_over_the_weights_of_the_backbone(init, hub, tmp_path):
    session = resnet(tmp_path / "run", f"init={init}", "backbone.weights=IMAGENET1K_V1")
    assert hub == ([] if init == "scratch" else ["IMAGENET1K_V1"])
    assert session.initial_weights.pretrained == (init == "pretrained")


def test_a_run_that_goes_on_fetches_nothing(hub, tmp_path):
    session = resnet(tmp_path / "run", "init=pretrained")
    (session.run_dir.checkpoints / "last.pt").touch()
    hub.clear()
    from tlrun.experiment.assemble import open_session

    open_session(session.run_dir, session.cfg)
    assert hub == []


def test_a_backbone_without_weights_says_so(tmp_path):
    with pytest.raises(ConfigError, match="'dann_cnn' has no pretrained weights"):
        small.session(tmp_path / "run", *FINETUNE, "init=pretrained")


def test_init_may_be_a_file_of_the_backbones_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = small.session(tmp_path / "a", *FINETUNE, "init=scratch").net["backbone"].state_dict()
    state = {f"module.{key}": value + 1 for key, value in state.items()}
    torch.save({"state_dict": state}, tmp_path / "mine.pth")
    for words in (["init=mine.pth"], ["init=pretrained", "backbone.weights=mine.pth"]):
        session = small.session(tmp_path / words[0], *FINETUNE, *words)
        assert session.cfg["init"] == "pretrained"
        assert session.cfg["backbone"]["weights"] == str(tmp_path / "mine.pth")
        mine = session.net["backbone"].state_dict()
        assert all(torch.equal(mine[key], state[f"module.{key}"]) for key in mine)
        assert session.initial_weights.origin()["file"] == str(tmp_path / "mine.pth")
    session = small.session(tmp_path / "c", *FINETUNE, "init=scratch", "backbone.weights=mine.pth")
    assert session.initial_weights.origin() is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["init=nowhere.pth"], "there is no such file"),
        (["init=a.pth", "backbone.weights=b.pth"], "two sets of weights"),
        (["backbone.weights=run/checkpoints/last.pt"], "init=.*run"),
    ],
)
def test_a_file_that_cannot_be_is_told_before_the_data_are_read(
    words, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for file in ("run/checkpoints/last.pt", "run/config.yaml"):
        (tmp_path / file).touch()
    monkeypatch.setattr("tlrun.experiment.assemble.build_data", None)
    with pytest.raises((ConfigError, DataError), match=message):
        small.session(tmp_path / "a", *FINETUNE, *words)


# ---- checks before any training ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("transfer.carry=[backbone.conv9]", r"did you mean 'backbone\.conv"),
        ("transfer.freeze=[classifer]", "did you mean 'classifier'"),
        ("transfer.reinit=['nothing.*']", r"no part or stage matches 'nothing\.\*'"),
        ("transfer.cut=6", r"transfer\.cut=6: the net has 5 stages, backbone\.conv1"),
    ],
)
def test_a_pattern_without_a_match_is_an_error_before_training(key, message, tmp_path):
    session = small.session(tmp_path / "run", *FINETUNE, key)
    with pytest.raises(ConfigError, match=message):
        check_phases(session)


def test_a_stage_both_carried_and_renewed_is_an_error_before_training(tmp_path):
    keys = (*FINETUNE, "transfer.carry=[backbone]", "transfer.reinit=[backbone.conv1]")
    with pytest.raises(ConfigError, match=r"both name backbone\.conv1"):
        check_phases(small.session(tmp_path / "run", *keys))


def test_nothing_left_to_train_is_an_error_before_training(tmp_path):
    keys = (*FINETUNE, "transfer.cut=5", "transfer.freeze_carried=true")
    with pytest.raises(ConfigError, match="cut at most after 4"):
        check_phases(small.session(tmp_path / "run", *keys))


def test_cut_and_carry_contradict(tmp_path):
    with pytest.raises(ConfigError, match="give only one"):
        small.session(
            tmp_path / "run", *FINETUNE, "transfer.cut=1", "transfer.carry=[backbone.conv1]"
        )


def test_a_cut_is_a_number_of_stages():
    with pytest.raises(ConfigError, match=r"transfer\.cut=-1"):
        compose(["transfer.cut=-1"])


def test_transfer_acts_in_the_first_marked_phase_and_freezes_from_there_on():
    phases = [Phase("a"), Phase("b", transfer=True, frozen=("x",)), Phase("c", transfer=True)]
    cfg = {"carry": None, "reinit": [], "freeze": ["y"], "cut": None, "freeze_carried": False}
    begin = InitialWeights.of("auto", cfg, phases)
    assert begin.phase == 1
    frozen = [begin.freeze_in(index, phase).frozen for index, phase in enumerate(phases)]
    assert frozen == [(), ("x", "y"), ("y",)]


def test_a_method_may_be_asked_for_its_phases_without_a_net():
    """predict does: it has no data and no net by then."""
    method = Finetune()
    method.init = "scratch"
    assert [phase.name for phase in method.phases(None)] == ["target"]


# ---- of a run, what predicts ---------------------------------------------------------------------


def test_of_adda_it_is_the_encoder_of_the_target(run, tmp_path):
    source = run("source", "method=adda", "method.adversarial_lr=0.1")
    theirs = parts(source)
    name = "conv2.conv.weight"
    assert not torch.equal(theirs["backbone"][name], theirs["backbone_target"][name])
    _, held = begun(tmp_path / "run", *FINETUNE, f"init={source.path}")
    assert torch.equal(held[f"parts.backbone.{name}"], theirs["backbone_target"][name])


@pytest.mark.parametrize("method", ["self_ensembling", "vada"])
def test_of_a_teacher_and_its_student_it_is_the_teacher(method, run, tmp_path):
    source = run("source", f"method={method}", "trainer.steps=4", "optimizer.lr=0.05")
    theirs = parts(source)
    for part, name in (("backbone", "conv2.conv.weight"), ("classifier", "out.weight")):
        assert not torch.equal(theirs[part][name], theirs["teacher"][f"inner.parts.{part}.{name}"])
    session, held = begun(tmp_path / "run", *FINETUNE, f"init={source.path}")
    for part in ("backbone", "classifier"):
        for name, _ in session.net[part].named_parameters():
            expected = theirs["teacher"][f"inner.parts.{part}.{name}"]
            assert torch.equal(held[f"parts.{part}.{name}"], expected), name
