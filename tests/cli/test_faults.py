"""Mistakes and mishaps through the real command: an exit code, one sentence, nothing lost.

1 the run failed, 2 the command was wrong, 130 / 143 interrupted. Never a traceback. A mistake that
is seen before the training leaves nothing behind; a later failure a run folder that says so.
"""

from __future__ import annotations

import errno
import importlib
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from helpers.hooks import in_every_trainer
from helpers.small import QUICK
from tlrun.cli.main import main
from tlrun.cli.train import run_overrides
from tlrun.config.build import argument_hints, locate
from tlrun.config.packaged import conf_dir
from tlrun.config.value_types import matches
from tlrun.engine import checkpoint
from tlrun.engine.hooks import Hooks
from tlrun.errors import ConfigError, DataError
from tlrun.run_folder.run_dir import RunDir, runs_in

RUN = RunDir("run")
WORDS = (*QUICK, "trainer.checkpoint_every=2", "method=source_only", "hydra.run.dir=run")


class Command:
    """`tlrun(...)`: run a command; checks what holds for every one, returns the exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.said = ""  # on stderr, by the last command

    def __call__(self, *words: str) -> int:
        code = main(list(words))
        self.said = self.capsys.readouterr().err
        assert "Traceback" not in self.said
        if code:
            assert re.match(r"tlrun: (error|interrupted)", self.sentence)
        return code

    @property
    def sentence(self) -> str:
        """The last line."""
        return self.said.rstrip("\n").rpartition("\n")[2]


@pytest.fixture
def tlrun(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    monkeypatch.delenv("TLRUN_DEBUG", raising=False)
    monkeypatch.setenv("TLRUN_CACHE", str(in_tmp.parent / f"{in_tmp.name}-cache"))
    module = importlib.import_module("tlrun.experiment.lifecycle")
    monkeypatch.setattr(module, "show", lambda run_dir: None)  # no plots: seconds saved
    return Command(capsys)


def at_step(patch: pytest.MonkeyPatch, number: int, action: Callable[[], None]) -> None:
    """Do something in the middle of step `number` (from 0)."""
    after = Hooks(after_step=lambda step: action() if step.global_step == number else None)
    in_every_trainer(patch, after)


def fail(error: BaseException) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


def stop(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def weights(run: RunDir) -> dict[str, Any]:
    parts = checkpoint.load(run.checkpoints / "last.pt")["parts"]
    return {f"{p}.{k}": value for p, part in parts.items() for k, value in part.items()}


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def rows(run: RunDir) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "time"} for row in run.read_metrics()]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """What six undisturbed steps give."""
    folder = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("tlrun.experiment.lifecycle.show", lambda run_dir: None)
        assert main(list(WORDS)) == 0
    return RunDir(folder / "run")


def assert_same(run: RunDir, straight: RunDir) -> None:
    assert run.read_status()["state"] == "completed"
    assert equal(weights(run), weights(straight))
    assert rows(run) == rows(straight)


# ---- mistakes that need no data: nothing is left behind -----------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("trainer.stpes=3", "unknown key 'trainer.stpes': did you mean 'steps'?"),
        ("lr=3", "unknown key 'lr': did you mean 'optimizer.lr'?"),
        ("method=dannn", "there is no method 'dannn': did you mean 'dann'? Valid: adabn, adda, "),
        ("method.trade_of=1", "unknown key 'method.trade_of': did you mean 'trade_off'?"),
        ("method.trade_off=abc", "method.trade_off=abc: expected a number"),
        ("backbone.head.hidden=abc", "backbone.head.hidden=abc: expected a list of values, each a"),
        ("backbone.head.hidden=[a]", "backbone.head.hidden=[a]: expected a list of values, each a"),
        ("backbone.head=3", "backbone.head=3: expected a group of keys"),
        ("backbone.batch_norm=3", "backbone.batch_norm=3: expected true or false"),
        ("data=folder data.source.val_fraction=x", "val_fraction=x: expected a number"),
        ("data.size=-28", "data.size=-28: expected auto, or a whole number from 1 to 4,096"),
        ("data.size=0", "data.size=0: expected auto, or a whole number from 1 to 4,096"),
        ("trainer.steps=1.5", "expected a whole number from 1 to 1,000,000,000, or null"),
        ("trainer.batch_size=-8", "batch_size=-8: expected a whole number from 1 to 65,536"),
        ("trainer.batch_size=9 trainer.accumulate=2", "try 8"),
        ("trainer.device=cud", "expected one of auto, cpu, cuda, mps; did you mean 'cuda'?"),
        ("optimizer.lr=-1", "optimizer.lr=-1: expected a number above 0"),
        ("optimizer.momentum=0.9", "optimizer"),
        ("target_labels=some", "one of auto, none, all, or a whole number from 1 to"),
        ("select=orcle", "there is no select 'orcle': did you mean 'oracle'?"),
        ("optimizer=[1,2]", "is chosen by the name of one of its options"),
        ("terms=[bss] terms.bss=1e30", "terms.bss=1e+30: it is a group of keys, not a value"),
        ("terms=[bss] terms.bss=[1,2]", "terms.bss is a group of keys, not a list"),
        ("selectors=[snnd]", "selectors=[snnd]: expected a list of values"),
        ("trainer.steps=3 trainer.epochs=2", "give only one of them"),
        ("seed=0,1", "add -m"),
        ("phases.train=3", "phases.train=3: give its keys"),
        ("data.normalize=hal", "did you mean 'half'?"),
        ("data.channels=7", "data.channels=7: expected one of 1, 3"),
        ("data.augment.source.rotat=3", "'data.augment.source.rotat': did you mean 'rotate'?"),
        ("data.augment.source.cutout=x", "data.augment.source.cutout=x: expected a number from 0"),
        ("method=dann method.lambda_schedule=sigmoi", "did you mean 'sigmoid'?"),
        ("method=dann method.domain_hidden=-5", "domain_hidden=-5: expected a whole number from 1"),
        ("method=dann method.domain_layers=-1", "domain_layers=-1: expected a whole number from 0"),
        ("backbone.width=-1", "backbone.width=-1: expected a number above 0"),
        ("backbone.head.hidden=[-3]", "backbone.head.hidden=[-3]: expected a list of values, each"),
    ],
)
def test_a_mistake_in_the_command(words: str, sentence: str, tlrun: Command) -> None:
    assert tlrun(*words.split()) == 2
    assert sentence in tlrun.said
    assert tlrun.said.count("\n") == 1
    assert list(Path.cwd().iterdir()) == []


# ---- mistakes that only the data or the net show: the run is marked as failed -------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("method=dann target_images=none", "trains on target images, which target_images=none"),
        ("method=dann method.attach=backbone.conv3", "no stage 'backbone.conv3' in this net: did"),
        ("method=target_only target_labels=9999", "'0' of digits_m has "),
        ("backbone.weights=DEFAULT", "has no pretrained weights: set backbone.weights=null"),
        ("backbone=lenet data.size=8", "images of 8x8 do not fit backbone 'lenet'"),
        ("backbone=dtn data.size=7", "images of 7x7 do not fit backbone 'dtn', 8x8 do"),
        ("phases.tran.steps=3", "phases.tran: this method has no such phase; it has train"),
        ("phases.train.frozen=[backbon]", "no part or stage matches 'backbon': did you mean"),
        ("method._target_=nix.Nix", "cannot import 'nix'"),
        ("trainer.device=cuda", "trainer.device=cuda is not available here"),
    ],
)
def test_a_mistake_that_the_data_or_the_net_show(words: str, sentence: str, tlrun: Command) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is one")
    assert tlrun(*WORDS, *words.split()) == 2
    assert sentence in tlrun.sentence
    assert not list(Path.cwd().iterdir())


def test_a_term_that_finds_nothing_at_its_start(tlrun: Command) -> None:
    """After the surroundings are written down, before the first evaluation."""
    assert tlrun(*WORDS, "terms=[l2_sp]") == 2
    assert "needs weights that were carried over" in tlrun.sentence
    assert not list(Path.cwd().iterdir())


def test_a_folder_that_was_there_stays(tlrun: Command) -> None:
    refused = (*WORDS, "phases.tran.steps=3")
    RUN.path.mkdir()
    assert tlrun(*refused) == 2
    assert RUN.path.is_dir()
    assert not list(RUN.path.iterdir())
    Path("run/notes.txt").write_text("mine")
    assert tlrun(*refused) == 2
    assert [path.name for path in RUN.path.iterdir()] == ["notes.txt"]
    RunDir.create("run")
    assert tlrun(*refused) == 2  # the folder is that run's now: this one would have had run_2
    assert sorted(path.name for path in RUN.path.iterdir()) == ["notes.txt", "status.json"]
    assert [path.name for path in Path.cwd().iterdir()] == ["run"]
    with pytest.raises(ConfigError, match="no such phase"):
        run_overrides([*refused, "hydra.run.dir=python/p"])
    assert not Path("python").exists()


@pytest.mark.parametrize("stands", ["p", "p/q", "p/q/r"])
def test_of_the_folders_above_those_stay_that_were_there(stands: str, tlrun: Command) -> None:
    for words in (("phases.tran.steps=3",), ("dry_run=true",)):
        Path(stands).mkdir(parents=True)
        tlrun(*WORDS, "method=source_only", *words, "hydra.run.dir=p/q/r")
        assert sorted(str(path) for path in Path("p").rglob("*")) == [
            folder
            for folder in ("p/q", "p/q/r")
            if folder in (stands, *map(str, Path(stands).parents))
        ]
        shutil.rmtree("p")
        tlrun(*WORDS, "method=source_only", *words, "hydra.run.dir=p/q/r")
        assert not list(Path.cwd().iterdir())


def test_a_resume_that_is_refused_keeps_its_folder(
    tlrun: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tlrun.experiment.assemble.load_data", lambda *_: stop(signal.SIGTERM)())
        assert tlrun(*WORDS) == 143
    patched = "tlrun.experiment.assemble.load_data"
    monkeypatch.setattr(patched, lambda *_: fail(DataError("no such data"))())
    assert tlrun("resume", "run") == 2
    assert RUN.read_status()["error"] == "no such data"
    assert tlrun("resume", "run", "dry_run=true") == 2
    assert tlrun.sentence.endswith("dry_run=false")
    assert RUN.config.is_file()


def test_the_leaderboard_says_why_a_job_was_refused(tlrun: Command) -> None:
    words = [word for word in WORDS if not word.startswith("hydra.run.dir")]
    assert main(["-m", *words, "terms=[],[l2_sp]", "hydra.sweep.dir=sweep"]) == 1
    states = {run.read_status()["state"]: run for run in map(RunDir, runs_in("sweep"))}
    assert states.keys() == {"completed", "failed"}
    assert "carried over" in states["failed"].read_status()["error"]
    assert "carried over" in Path("sweep/report.html").read_text()


# ---- images -------------------------------------------------------------------------------------


@pytest.fixture
def images(in_tmp: Path) -> Callable[..., list[str]]:
    """make(classes of the source, of the target) -> the words that choose these folders."""

    def make(source: str = "ab", target: str = "ab") -> list[str]:
        draw = np.random.default_rng(0)
        for domain, classes in (("source", source), ("target", target)):
            for name in classes:
                (in_tmp / domain / name).mkdir(parents=True)
                for i in range(15):
                    pixels = draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(in_tmp / domain / name / f"{i}.png")
        return [
            *WORDS,
            "data=folder",
            "data.size=16",
            "data.source.root=source",
            "data.target.root=target",
        ]

    return make


def here(path: str) -> str:
    """A path as tlrun names it: it makes them absolute, so that a run can be used from anywhere."""
    return str(Path(path).absolute())


def test_a_folder_that_is_not_there(tlrun: Command, images: Callable[..., list[str]]) -> None:
    words = images()
    assert tlrun(*words, "data.target.root=tagret") == 2
    assert f"data.target.root={here('tagret')}: no such folder" in tlrun.sentence
    assert tlrun(*words, "data.target.root=null") == 2
    assert "Set data.target.root=FOLDER or data.target.list=FILE" in tlrun.sentence
    assert tlrun(*words, "data.target.list=nix.txt") == 2
    assert f"cannot read the list '{here('nix.txt')}'" in tlrun.sentence
    Path("list.txt").write_text("a/0.png a\na/99.png a\n")
    assert tlrun(*words, "data.target.list=list.txt") == 2
    where = f"'{here('list.txt')}', line 2: no image at '{here('target/a/99.png')}'"
    assert where in tlrun.sentence


def test_a_class_without_an_image(tlrun: Command, images: Callable[..., list[str]]) -> None:
    words = images()
    Path("source/empty").mkdir()
    assert tlrun(*words) == 2
    assert f"the class 'empty' has no image in '{here('source/empty')}'" in tlrun.sentence


def test_other_classes_in_the_target(tlrun: Command, images: Callable[..., list[str]]) -> None:
    assert tlrun(*images("abc", "abd")) == 2
    assert "must have the same classes (only in source: c; only in target: d)" in tlrun.sentence


def test_an_unreadable_image_is_named_and_left_out_only_when_asked(
    tlrun: Command, images: Callable[..., list[str]]
) -> None:
    words = images()
    Path("target/b/7.png").write_bytes(b"no image at all")
    assert tlrun(*words) == 2
    assert f"cannot read the image '{here('target/b/7.png')}'" in tlrun.sentence
    assert "leave such files out: data.target.skip_unreadable=true." in tlrun.sentence
    assert tlrun(*words, "data.target.skip_unreadable=true") == 0
    assert "target/b/7.png" in tlrun.said
    target = RUN.read_json(RUN.environment)["data"]["domains"]["target"]["splits"]
    assert sum(split["count"] for split in target.values()) == 29


def test_a_set_that_is_neither_here_nor_to_be_had(
    tlrun: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TLRUN_DATA", raising=False)
    monkeypatch.setattr(
        "tlrun.data.examples.download._open_url", lambda url: fail(OSError("no network"))()
    )
    assert tlrun(*WORDS, "data=mnist_mnistm") == 2
    assert "MNIST/raw/train-images-idx3-ubyte.gz" in tlrun.said
    assert "digits_digitsm" in tlrun.said  # what works now


# ---- the training itself --------------------------------------------------------------------


def test_a_loss_that_is_not_a_number(
    tlrun: Command, monkeypatch: pytest.MonkeyPatch, straight: RunDir
) -> None:
    from tlrun.losses.classification import classification_loss

    calls = []

    def spoiled(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(1)
        return classification_loss(*args, **kwargs) * (float("nan") if len(calls) == 5 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr("tlrun.methods.fine_tuning.source_only.classification_loss", spoiled)
        assert tlrun(*WORDS) == 1
    assert "the loss 'classification' is nan at step 4" in tlrun.sentence
    assert "optimizer.lr" in tlrun.sentence
    assert str(RUN.checkpoints / "last.pt") in tlrun.sentence
    assert RUN.read_status()["state"] == "failed"
    assert checkpoint.load(RUN.checkpoints / "last.pt")["step"] == 4
    assert all(bool(value.isfinite().all()) for value in weights(RUN).values())
    assert tlrun("resume", "run") == 0
    assert_same(RUN, straight)


def test_a_learning_rate_that_is_far_too_high(tlrun: Command) -> None:
    too_high = ["optimizer=sgd", "optimizer.lr=1000", "schedule=constant"]
    assert tlrun(*WORDS, *too_high, "trainer.checkpoint_every=100") == 1
    assert re.search("the loss 'classification' is (nan|inf)", tlrun.sentence)
    assert "none is saved yet" in tlrun.sentence
    assert not list(RUN.checkpoints.glob("last*"))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
)
def test_out_of_memory_names_the_knobs(
    error: Exception, tlrun: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 3, fail(error))
    assert tlrun(*WORDS) == 1
    assert "trainer.batch_size" in tlrun.sentence
    assert "trainer.accumulate" in tlrun.sentence
    assert RUN.read_status()["state"] == "failed"


# ---- the place it writes to -------------------------------------------------------------------


def test_one_image_is_too_few_for_batch_norm(tlrun: Command) -> None:
    words = [w for w in WORDS if not w.startswith("trainer.batch_size")]
    more = ["backbone.head.batch_norm=true", "trainer.batch_size=1"]
    assert tlrun(*words, *more) == 2
    assert "batch norm needs at least two images in each batch" in tlrun.sentence


def test_an_output_folder_that_cannot_be_written(
    tlrun: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").write_text("in the way")
    assert tlrun(*WORDS, "hydra.run.dir=file/run") == 1
    assert "file/run" in tlrun.sentence
    assert "hydra.run.dir=" in tlrun.sentence
    assert [path.name for path in Path.cwd().iterdir()] == ["file"]

    made = os.mkdir

    def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
        if Path(path).name == "sealed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        made(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", mkdir)  # as root, no folder is really sealed
    assert tlrun(*WORDS, "hydra.run.dir=sealed") == 1
    assert "sealed: Permission denied" in tlrun.sentence


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_when_a_checkpoint_is_saved(
    tlrun: Command, monkeypatch: pytest.MonkeyPatch, straight: RunDir
) -> None:
    write = checkpoint.write_atomic

    def full_after_the_first(path: Path, content: Any) -> None:
        if path.name == "new.pt" and (path.parent / "last.pt").exists():
            raise FULL
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomic", full_after_the_first)
        assert tlrun(*WORDS) == 1
    assert "No space left on device; the checkpoint before it is intact" in tlrun.sentence
    assert f"tlrun resume {RUN.path.absolute()}" in tlrun.sentence
    assert checkpoint.load(RUN.checkpoints / "last.pt")["step"] == 2
    assert tlrun("resume", "run") == 0
    assert_same(RUN, straight)


def test_a_disk_that_is_full_for_every_file(
    tlrun: Command, monkeypatch: pytest.MonkeyPatch, straight: RunDir
) -> None:
    """Rows, checkpoints, status and log alike."""
    with monkeypatch.context() as patch:

        def fill() -> None:
            for module in ("tlrun.run_folder.json_file", "tlrun.engine.checkpoint"):
                patch.setattr(f"{module}.write_atomic", lambda *_: fail(FULL)())
            patch.setattr(RunDir, "append_metrics", lambda *_: fail(FULL)())

        at_step(patch, 2, fill)
        assert tlrun(*WORDS) == 1
    assert "No space left on device" in tlrun.sentence
    assert "tlrun resume" in tlrun.sentence
    assert tlrun("resume", "run") == 0
    assert_same(RUN, straight)


# ---- interruptions and resuming ---------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_after_the_step_and_resume_goes_on(
    number: int, code: int, tlrun: Command, monkeypatch: pytest.MonkeyPatch, straight: RunDir
) -> None:
    with monkeypatch.context() as patch:
        at_step(patch, 2, stop(number))
        assert tlrun(*WORDS) == code
    how = f"go on with: tlrun resume {RUN.path.absolute()}"
    assert tlrun.sentence == f"tlrun: interrupted: stopped at step 3; {how}"
    assert RUN.read_status()["state"] == "interrupted"
    assert tlrun("resume", "run") == 0
    assert_same(RUN, straight)


PREPARES = {
    "data": "tlrun.experiment.assemble.load_data",
    "net": "tlrun.engine.trainer.frozen_kept",
    "method": "tlrun.methods.base.Method.start",
    "first evaluation": "tlrun.engine.trainer.Trainer._evaluate",
}


@pytest.mark.parametrize("what", PREPARES)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_first_step_ends_at_once(
    number: int,
    code: int,
    what: str,
    tlrun: Command,
    monkeypatch: pytest.MonkeyPatch,
    straight: RunDir,
) -> None:
    went_on: list[str] = []

    def prepare(*_: Any, **__: Any) -> None:
        stop(number)()
        went_on.append(what)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(PREPARES[what], prepare)
            assert tlrun(*WORDS) == code
    finally:
        signal.signal(signal.SIGINT, before)
    assert went_on == []
    how = f"go on with: tlrun resume {RUN.path.absolute()}"
    assert tlrun.sentence == f"tlrun: interrupted: stopped; {how}"
    assert RUN.read_status()["state"] == "interrupted"
    assert not (RUN.checkpoints / "last.pt").exists()
    assert tlrun("resume", "run") == 0
    assert_same(RUN, straight)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_after_the_training(
    number: int, code: int, tlrun: Command, monkeypatch: pytest.MonkeyPatch, straight: RunDir
) -> None:
    module = importlib.import_module("tlrun.experiment.lifecycle")
    # A shell's background job ignores Ctrl-C, and so would this test there.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(module, "conclude", lambda session: stop(number)())
            assert tlrun(*WORDS) == code
    finally:
        signal.signal(signal.SIGINT, before)
    assert RUN.read_status()["state"] == "interrupted"
    assert tlrun("resume", "run") == 0
    assert_same(RUN, straight)


@pytest.fixture
def interrupted(tlrun: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A run that stopped at step 5, with checkpoints of steps 5 and 4."""
    with monkeypatch.context() as patch:
        at_step(patch, 4, stop(signal.SIGINT))
        assert tlrun(*WORDS) == 130
    return tlrun


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in random.Random(0).sample(range(len(data)), 5):
        data[place] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_checkpoint(interrupted: Command, straight: RunDir) -> None:
    damage(RUN.checkpoints / "last.pt")
    assert interrupted("resume", "run") == 0
    assert "last.pt is damaged; going on from the checkpoint before it" in interrupted.said
    assert "resumed at step 4" in interrupted.said
    assert_same(RUN, straight)


def test_a_cut_off_checkpoint_and_no_other(interrupted: Command) -> None:
    for name in ("last.pt", "previous.pt"):
        path = RUN.checkpoints / name
        path.write_bytes(path.read_bytes()[:1000])
    assert interrupted("resume", "run") == 1
    assert "every checkpoint in run/checkpoints is damaged" in interrupted.sentence


def test_an_edited_config_is_refused(interrupted: Command, straight: RunDir) -> None:
    original = RUN.config.read_text()
    cfg = OmegaConf.load(RUN.config)
    cfg.optimizer.lr, cfg.trainer.batch_size = 0.5, 16
    OmegaConf.save(cfg, RUN.config)
    assert interrupted("resume", "run") == 2
    assert "(optimizer.lr: 0.001 -> 0.5; trainer.batch_size: 8 -> 16)" in interrupted.sentence
    RUN.config.write_text(original)
    assert interrupted("resume", "run", "seed=7") == 2
    assert "(seed: 0 -> 7)" in interrupted.sentence
    assert interrupted("resume", "run", "trainer.steps=5") == 2  # shorter
    assert RUN.config.read_text() == original
    assert interrupted("resume", "run", "tags=[mine]", "trainer.log_every=2") == 0
    assert_same(RUN, straight)


@pytest.mark.parametrize("by_hand", [False, True])
def test_longer_training_is_allowed_and_stamped(by_hand: bool, interrupted: Command) -> None:
    words = ["resume", "run"]
    if by_hand:
        cfg = OmegaConf.load(RUN.config)
        cfg.trainer.steps = 8
        OmegaConf.save(cfg, RUN.config)
    else:
        words.append("trainer.steps=8")
    assert interrupted(*words) == 0
    summary = RUN.read_json(RUN.summary)
    assert (summary["steps"], summary["resumed_with"]) == (8, ["trainer.steps=8"])


def test_two_processes_never_work_in_one_folder(interrupted: Command, straight: RunDir) -> None:
    RUN.set_status("running")
    status = {**RUN.read_status(), "pid": os.getppid()}
    RUN.write_json(RUN.status, status)
    config = RUN.config.read_text()
    with filelock.FileLock("run/.lock"):
        for more in ([], ["trainer.steps=9"]):
            assert interrupted("resume", "run", *more) == 1
            assert "another process is working on run" in interrupted.sentence
            assert RUN.read_status() == status
            assert RUN.config.read_text() == config
    assert interrupted("resume", "run") == 0
    assert_same(RUN, straight)


# ---- the cheap check of types against the packaged files ----------------------------------------


@pytest.mark.parametrize("group", ["method", "backbone", "data", "terms"])
def test_no_packaged_argument_takes_a_word_where_its_file_has_a_number(group: str) -> None:
    """`schema.check_like` refuses words there before any signature is known."""

    def blocks(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            if "_target_" in node:
                yield node
            for value in node.values():
                yield from blocks(value)

    for file in (conf_dir() / group).glob("*.yaml"):
        for block in blocks(OmegaConf.to_container(OmegaConf.load(file))):
            factory = locate(block["_target_"])
            hints = argument_hints(factory)
            for name, default in block.items():
                if isinstance(default, int | float) and name in hints:
                    assert not matches("word", hints[name]), f"{file.name}: {name}"
