"""A received run folder runs no foreign code, whichever verb opens it; what is named now, does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import tlrun
from tlrun.cli.main import main
from tlrun.config import packaged, saved_code, trust
from tlrun.config.build import locate, plain
from tlrun.config.compose import compose
from tlrun.config.packaged import conf_dir
from tlrun.config.saved import load_config
from tlrun.errors import ConfigError, Interrupted
from tlrun.experiment.initial_weights import prediction_parts_of
from tlrun.run_folder.run_dir import RunDir, runs_in
from tlrun.sweep.command import check_overrides

RAN = "open('ran', 'w')"  # what foreign code does first
MODULE = f"""
{RAN}
from torch import nn
from tlrun.methods.fine_tuning.source_only import SourceOnly
import os

class Mine(SourceOnly):
    pass

def net(**_): return nn.Identity()
class Other: pass
"""
ATTACKS: dict[str, Any] = {
    "method": {"_target_": "os.system", "command": "touch ran"},
    "backbone": {"_target_": "subprocess.Popen", "args": ["touch", "ran"]},
    "balance": {"_target_": "builtins.exec", "source": RAN},
    "terms": {"x": {"_target_": "os.system", "command": "touch ran"}},
    "data.source": {"_target_": "os.system", "command": "touch ran"},
    "data.images": [[{"_target_": "evil_module.Mine"}]],
    "data._target_": "tlrun.engine.checkpoint.os.system",
    "data.target._target_": "tlrun.data.examples.download.os.remove",
    "data.augment.source": {"x": {"_target_": "os.system"}},
    "method._target_": "evil_module.Mine",
    "backbone._target_": "tlrun.run_folder.run_dir.write_atomic",
    "balance._target_": "tlrun.cli.main.main",
    "terms.y": {"_target_": "tlrun.methods.adversarial.dann.DANN"},
    "optimizer._target_": "os.system",
    "phases": {"train": {"optimizer": {"_target_": "os.system"}}},
    "tags": [{"_target_": "os.system"}],
    "transfer": {"_target_": ["os.system"]},
    "evaluate._target_": "tlrun.methods.adversarial.dann.DANN.__init__.__globals__",
}
VERBS = {
    "predict": ["predict", "run", "image.png"],
    "evaluate": ["evaluate", "run"],
    "export": ["export", "run", "--to", "onnx"],
    "reproduce": ["reproduce", "run"],
    "resume": ["resume", "run"],
}


@pytest.fixture
def received(in_tmp: Path) -> Callable[[str, Any], Path]:
    """A run folder as if somebody had sent it: `received(key, value)` changes its config.yaml."""
    (in_tmp / "evil_module.py").write_text(RAN)
    (in_tmp / "image.png").touch()

    def make(key: str = "", value: Any = None) -> Path:
        folder = in_tmp / "run"
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints" / "last.pt").touch()
        (folder / "evil_module.py").write_text(RAN)
        cfg = compose(["trainer.steps=2"])
        OmegaConf.set_struct(cfg, False)
        if key:
            OmegaConf.update(cfg, key, value, force_add=True)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
        (folder / "status.json").write_text('{"state": "completed"}')
        (folder / "label_space.json").write_text("{}")
        return folder

    return make


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence by which a command ends; nothing of foreign code ran."""
    assert main(list(words)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert not list(Path.cwd().rglob("ran"))
    assert "evil_module" not in sys.modules
    return said


@pytest.mark.parametrize("key", ATTACKS)
def test_no_target_of_a_file_is_run(
    key: str, received: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = received(key, ATTACKS[key])
    with pytest.raises(ConfigError, match="it is not run"):
        load_config(folder / "config.yaml")
    assert not list(Path.cwd().rglob("ran"))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("key", ["method", "method._target_", "data.target._target_"])
def test_no_verb_runs_it(
    verb: str, key: str, received: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    received(key, ATTACKS[key])
    before = sorted(Path.cwd().rglob("*"))
    said = refused(capsys, *VERBS[verb])
    assert "run/config.yaml: " in said
    assert ("--trust" in said) == (key != "data.target._target_")
    assert sorted(Path.cwd().rglob("*")) == before  # and nothing is left


FORMER = [
    ("method", "tlrun.methods.dann.DANN"),
    ("method", "tlrun.methods.progressive.Progressive"),  # a folder has that name now
    ("data", "tlrun.data.episodes.episodes"),
    ("data", "tlrun.data.zero_shot.xlsa17"),
]


@pytest.mark.parametrize("verb", VERBS)
def test_a_run_of_an_earlier_tlrun_is_to_be_trained_again(
    verb: str, received: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = received("method._target_", "tlrun.methods.dann.DANN")
    (run / "overrides.yaml").write_text("- method=dann\n- tags=[a b]\n")
    assert refused(capsys, *VERBS[verb]) == (
        "tlrun: error: run/config.yaml was written by an earlier tlrun, whose modules had other "
        "names (method is tlrun.methods.dann.DANN): train it again: "
        "tlrun method=dann 'tags=[a b]'\n"
    )


@pytest.mark.parametrize(("key", "target"), FORMER)
def test_names_of_an_earlier_tlrun(
    key: str, target: str, received: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = received(key, {"_target_": target})
    for words in ("[method=dann, method._target_=os.system]", "['tags=${oc.env:HOME}']", "{a: 1}"):
        (run / "overrides.yaml").write_text(words)  # never shown as a command to type
        assert refused(capsys, "evaluate", "run").endswith(f"({key} is {target}): train it again\n")


def test_nor_does_python(received: Callable[..., Path]) -> None:
    received("method", ATTACKS["method"])
    with pytest.raises(ConfigError, match="it is not run"):
        tlrun.load("run")


def test_weights_of_a_received_run_are_taken_as_they_are(
    received: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    run = RunDir(received("method", ATTACKS["method"]))
    assert prediction_parts_of(run, {"parts": {"backbone": 1}, "method": {}}) == {"backbone": 1}
    assert "it is not run" in caplog.text
    assert not Path("ran").exists()


def test_a_config_that_holds_more_than_values(
    received: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("SECRET", "hidden")
    received("tags", ["${oc.env:SECRET}"])
    said = refused(capsys, "evaluate", "run")
    assert "a saved configuration holds values only" in said
    assert "hidden" not in said


# ---- one's own ----------------------------------------------------------------------------------


@pytest.fixture
def own(received: Callable[..., Path]) -> Iterator[Path]:
    """A run with a method of one's own, whose module lies in the working folder."""
    folder = received("method", {"_target_": "own_trusted.Mine"})
    Path("own_trusted.py").write_text(MODULE)
    Path("my_conf/method").mkdir(parents=True)
    Path("my_conf/method/mine.yaml").write_text("# Mine\n_target_: own_trusted.Mine\n")
    yield folder
    sys.modules.pop("own_trusted", None)


def test_what_is_named_now_is_trusted_and_only_now(own: Path) -> None:
    for context in (trust.trusting(["own_trusted"]), trust.trusting(config_dir="my_conf")):
        with context:
            assert load_config(own / "config.yaml").method._target_ == "own_trusted.Mine"
        with pytest.raises(ConfigError, match="--trust own_trusted"):
            load_config(own / "config.yaml")
    assert trust.current() == trust.Trust()


@pytest.mark.parametrize(
    ("key", "target", "why"),
    [
        ("method", "own_trusted.os.system", "comes from the module"),
        ("method", "own_trusted.nn.Identity", "comes from the module"),
        ("method", "own_trusted.Other", "is no Method"),
        ("terms.x", "own_trusted.Mine", "is no Term"),
        ("balance", "own_trusted.Mine", "is no Balance"),
        ("backbone", "own_trusted.Mine", "is no Module"),
        ("optimizer", "own_trusted.Mine", "nothing is built there"),
        ("method", "own_trusted2.Mine", "no part of tlrun"),
    ],
)
def test_a_trusted_module_gives_what_fits_the_place(
    own: Path, key: str, target: str, why: str
) -> None:
    cfg = compose()
    OmegaConf.set_struct(cfg, False)
    OmegaConf.update(cfg, key, {"_target_": target}, force_add=True)
    with trust.trusting(["own_trusted"]), pytest.raises(ConfigError, match=why):
        saved_code.check(plain(cfg), "config.yaml")


def test_words_that_are_no_module(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "name of a Python module" in refused(capsys, "evaluate", "run", "--trust", "my conf/x")
    assert "no such folder" in refused(capsys, "evaluate", "run", "--config-dir", "nowhere")


def test_what_a_command_composes_may_be_read_back(own: Path) -> None:
    cfg = plain(OmegaConf.load(own / "config.yaml"))
    with saved_code.composed(cfg):
        assert load_config(own / "config.yaml").method._target_ == "own_trusted.Mine"
        with saved_code.composed(compose().data):
            load_config(own / "config.yaml")
    with trust.trusting(received=True), pytest.raises(ConfigError), saved_code.composed(cfg):
        pass


def test_it_reaches_the_processes_of_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with trust.trusting(["mine"], targets=["a.B"], received=True):
        here, variables = trust.current(), trust.as_environment()
    assert here.modules == ("mine",)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert trust.current() == here
    for damaged in ("", "{", "[]", "5", '{"modules": 5, "x": 1}'):
        monkeypatch.setenv(trust.VARIABLE, damaged)
        assert trust.current() == trust.Trust()


def test_every_data_function_of_the_package_is_one_that_a_file_may_name() -> None:
    """They stand in conf/; a set that stood nowhere could be trained on, but not opened again."""
    for group in ("method", "backbone", "terms", "balance", "data"):
        assert packaged.packaged(group)
        for target in packaged.packaged(group):
            assert callable(locate(target)), target
    for file in conf_dir().rglob("*.yaml"):
        for target in packaged.TARGET.findall(file.read_text()):
            known = set().union(*map(packaged.packaged, (*packaged.GROUPS, "data")))
            assert target in known or target == "tlrun.sweep.callback.SweepCallback"


# ---- the working folder -------------------------------------------------------------------------


def test_a_package_that_is_missing_is_never_taken_from_the_working_folder(in_tmp: Path) -> None:
    Path("surely_no_package.py").write_text(RAN)
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if p]\n"
        "from tlrun.config.build import locate\n"
        "locate('tlrun.methods.adversarial.dann.DANN')\n"
        "try:\n    import surely_no_package\n"
        "except ImportError: print('not found')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "not found\n"
    assert not Path("ran").exists()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="PYTHONSAFEPATH came with Python 3.11")
def test_a_worker_imports_nothing_of_the_working_folder(in_tmp: Path) -> None:
    from tlrun.experiment.processes import SAFE_PATH

    Path("filelock.py").write_text(RAN)
    command = [sys.executable, "-m", "tlrun.experiment.worker", "nowhere", "0", "1"]
    subprocess.run(command, env=os.environ | SAFE_PATH, capture_output=True, check=False)
    assert not Path("ran").exists()


# ---- sweeps -------------------------------------------------------------------------------------

HOSTILE = [
    "hydra.launcher._target_=os.system",
    "+hydra.launcher.command='touch ran'",
    "hydra.launcher={_target_: os.system, command: 'touch ran'}",
    "hydra.callbacks.x={_target_: os.system}",
    "+hydra.callbacks.x._target_=os.system",
    "hydra.sweeper._target_=os.system",
    "hydra.sweeper.params={x: 1}",
    "hydra.searchpath=[file:///tmp/evil]",
    "hydra/job_logging=custom",
    "hydra.job_logging={version: 1}",
    "hydra.job.env_set.PYTHONPATH=/tmp/evil",
    "++hydra.job.env_set.TLRUN_TRUST='{}'",
    "hydra/launcher=evil",
    "hydra/sweeper=evil",
    "launcher=../../evil",
    "hydra.launcher.setup=['touch ran']",
    "hydra.launcher.pre_dispatch='open(1)'",
    "hydra.launcher.additional_parameters={}",
    "hydra.sweep.subdir=../../elsewhere",
    "hydra.sweep.dir=/tmp/elsewhere",
    "hydra.run.dir=/tmp/elsewhere",
    "method@hydra.launcher=dann",
    "+method@x=dann",
    "method=../../../evil",
    "method=dann,/tmp/evil",
    "tags=[${oc.env:HOME}]",
    "tags=[${oc.decode:x}]",
    "tags=[${${x}:HOME}]",
    "tags=[${ oc.env:HOME}]",
    "hydra.launcher.comment='a\nb'",
    "--config-dir=/tmp/evil",
    "--config-path",
    "-m",
    5,
    None,
    "a b",
]
HARMLESS = [
    "method=source_only,dann",
    "seed=range(8)",
    "data.source.root=../photos",
    "init=../other_run",
    "method.trade_off=${method.weight}",
    "hydra.sweep.subdir=${tlrun.choice:method}_${seed}",
    "hydra/launcher=joblib",
    "launcher=submitit",
    "hydra.launcher.partition=gpu",
    "hydra.launcher.n_jobs=2",
    "search=optuna",
    "hydra.sweeper.trials=40",
    "search/space@space=mine",
    "optimizer.lr=tag(log,interval(1e-4,1e-2))",
    "+phases.train.steps=3",
    "~terms",
    "experiment=mnist_mnistm/dann",
    "terms=[vat,entropy]",
]


@pytest.mark.parametrize("word", HOSTILE, ids=str)
def test_words_of_a_saved_command_that_are_refused(word: Any) -> None:
    with pytest.raises(ConfigError, match="is not taken from a file"):
        check_overrides([word], Path("sweep"))


def test_words_that_are_taken(in_tmp: Path) -> None:
    check_overrides(HARMLESS, Path("sweep"))


def sweep(*words: str, **more: Any) -> None:
    Path("sweep").mkdir(exist_ok=True)
    command = {
        "overrides": list(words),
        "config_dir": None,
        "config_name": "config",
        "folder": str(Path.cwd()),
        **more,
    }
    Path("sweep/sweep.yaml").write_text(json.dumps({"commands": {"0": command}}))


@pytest.mark.parametrize(
    ("words", "more", "why"),
    [
        ((HOSTILE[0],), {}, "can run code"),
        ((), {"config_dir": "evil_conf"}, "--config-dir evil_conf"),
        ((), {"config_name": "../evil"}, "is no name"),
        ((), {"folder": 5}, "is damaged"),
        ((), {"overrides": "method=dann"}, "is damaged"),
    ],
)
def test_a_received_sweep(
    words: tuple[str, ...], more: Any, why: str, in_tmp: Path, capsys: Any, no_pages: None
) -> None:
    (in_tmp / "evil_module.py").write_text(RAN)
    sweep(*words, **more)
    assert why in refused(capsys, "resume", "sweep")


def test_a_job_of_a_received_sweep_is_checked_as_it_is_composed(
    in_tmp: Path, capsys: Any, no_pages: None
) -> None:
    (in_tmp / "evil_module.py").write_text(RAN)
    for target in ("evil_module.Mine", "tlrun.engine.checkpoint.os.system"):
        sweep(f"method._target_={target}", "trainer.steps=1")
        assert main(["resume", "sweep"]) == 1
        said = capsys.readouterr().err
        assert f"the sweep's command: method: _target_ is {target}" in said
        assert "it is not run" in said
        assert not list(in_tmp.rglob("ran"))


def test_a_job_that_was_begun_is_checked_too(
    in_tmp: Path,
    received: Callable[..., Path],
    capsys: Any,
    no_pages: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command is harmless, the config.yaml of the job that it goes on with is not."""
    folder = received("method", ATTACKS["method"])

    def stopped(run: RunDir) -> None:
        raise Interrupted("stopped", 143)

    with monkeypatch.context() as patched:
        patched.setattr("tlrun.experiment.start.run_experiment", stopped)
        assert main(["-m", "seed=0,1", "trainer.steps=1", "hydra.sweep.dir=sweep"]) == 143
    job = runs_in("sweep")[0]
    (job / "config.yaml").write_text((folder / "config.yaml").read_text())
    (job / "checkpoints").mkdir(exist_ok=True)
    (job / "checkpoints" / "last.pt").touch()
    capsys.readouterr()
    for words in (["resume", "sweep"], ["-m", "seed=0,1", "trainer.steps=1"]):
        with monkeypatch.context() as patched:
            patched.setattr("tlrun.experiment.start.run_experiment", lambda run: {})
            assert main([*words, "hydra.sweep.dir=sweep"]) == 1
        assert "_target_ is os.system" in capsys.readouterr().err
        assert not list(in_tmp.rglob("ran"))
