"""The command line: exit codes, one sentence per mistake, no torch until training, run folders."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import OmegaConf

import tlrun
from tlrun.cli.help_text import HELP
from tlrun.cli.list_options import GROUPS
from tlrun.cli.main import main
from tlrun.cli.parsers import VERBS, parser_of
from tlrun.cli.train import check_built, preset_axes, variants
from tlrun.config.compose import compose
from tlrun.config.saved import load_config
from tlrun.errors import ConfigError, Interrupted, RunError
from tlrun.report.statistics.leaderboard import leaderboard_of
from tlrun.run_folder.run_dir import RunDir, runs_in
from tlrun.sweep.state import current_sweep

# What --help, a typo and tab completion may cost, in units of the CPU time that importing Hydra
# takes on the same machine: 5 are about 0.6 s on a core of 2.5 GHz. The dearest of them takes 2.6;
# torch alone would take 9.
COST = 5


@pytest.fixture
def executed(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Path]]:
    """Replace training by a function of the config; returns the folders it was called with."""

    def install(action: Callable[[Any], None] = lambda cfg: None) -> list[Path]:
        calls: list[Path] = []

        def execute(path: Path, began: float | None = None) -> dict[str, Any]:
            calls.append(Path(path))
            run = RunDir.open(path)
            cfg = OmegaConf.load(run.config)
            action(cfg)
            run.set_status("completed")
            run.write_json(run.summary, {"schema": 1})
            return {"schema": 1}

        fake = ModuleType("tlrun.experiment.lifecycle")
        fake.execute = execute  # type: ignore[attr-defined]
        page = ModuleType("tlrun.report.pages.write")
        page.write_report = lambda path, output=None: Path(path) / "report.html"  # type: ignore[attr-defined]
        page.write_leaderboard = lambda path: leaderboard_of([])  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "tlrun.experiment.lifecycle", fake)
        monkeypatch.setitem(sys.modules, "tlrun.report.pages.write", page)
        return calls

    monkeypatch.delenv("TLRUN_DEBUG", raising=False)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    return install


# ---- cost -----------------------------------------------------------------------------------

CPU = "used = resource.getrusage(resource.RUSAGE_SELF); cpu = used.ru_utime + used.ru_stime"
IMPORT_HYDRA = f"import resource, hydra._internal.hydra\n{CPU}\nprint(cpu)"
MEASURE = f"""
import resource, sys
from tlrun.cli.main import main
sys.argv = ["tlrun", *sys.argv[1:]]
code = main()
{CPU}
print(code, "torch" in sys.modules, cpu, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def hydra_seconds() -> float:
    """CPU time of a process that only imports Hydra: the least of three."""
    command = [sys.executable, "-c", IMPORT_HYDRA]
    return min(float(subprocess.check_output(command)) for _ in range(3))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["method=dannn"], 2),
        (["trainer.stpes=3"], 2),
        (["optimizer.betas=[0.9]"], 2),
        (["-m", "method=dann,dannn", "seed=0,1"], 2),
        (["reusme", "x"], 2),
        (["resume", "nowhere"], 2),
        (["list"], 0),
        (["-sc", "query=bash"], 0),
        (["--cfg", "job"], 0),
    ],
)
def test_quick_answers_import_no_torch_and_leave_nothing(
    words: list[str], code: int, in_tmp: Path, hydra_seconds: float
) -> None:
    environment = {**os.environ, "COMP_LINE": "tlrun method=d", "COMP_POINT": "14"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, env=environment
    )
    *said, measured = done.stderr.strip().splitlines()
    exit_code, torch_loaded, cpu = measured.split()
    assert (int(exit_code), torch_loaded) == (code, "False")
    assert float(cpu) < COST * hydra_seconds
    assert list(in_tmp.iterdir()) == []
    if code:
        assert len(said) == 1
        assert said[0].startswith("tlrun: error: ")
    if "-sc" in words:
        assert "method=dann" in done.stdout.split()


def test_the_help_of_list_names_all_that_can_be_listed() -> None:
    assert ", ".join(GROUPS) in " ".join(parser_of("list").format_help().split())


# ---- training -------------------------------------------------------------------------------


def test_a_run_writes_its_config_first(executed: Callable[..., list[Path]]) -> None:
    calls = executed()
    assert main(["method=source_only", "seed=3", "trainer.epochs=2"]) == 0
    run = RunDir.open(calls[0])
    cfg = OmegaConf.load(run.config)
    assert (cfg.seed, cfg.choices.method, cfg.trainer.steps) == (3, "source_only", None)
    assert "hydra" not in cfg
    assert list(OmegaConf.load(run.overrides)) == [
        "method=source_only",
        "seed=3",
        "trainer.epochs=2",
    ]
    assert (run.path / ".hydra" / "config.yaml").is_file()
    pattern = "outputs/????-??-??/??-??-??_source_only_digits_digitsm_??????"
    assert list(Path.cwd().glob(pattern)) == [run.path]


def test_a_named_folder_is_honoured_and_never_shared(executed: Callable[..., list[Path]]) -> None:
    calls = executed()
    assert main(["hydra.run.dir=here"]) == 0
    assert main(["hydra.run.dir=here"]) == 0
    assert main(["hydra.run.dir=here", "seed=7"]) == 0
    assert [path.name for path in calls] == ["here", "here_2", "here_3"]
    typed = [list(OmegaConf.load(path / ".hydra" / "overrides.yaml")) for path in calls]
    assert typed == [[], [], ["seed=7"]]
    hydra = OmegaConf.load(calls[2] / ".hydra" / "hydra.yaml").hydra
    assert hydra.overrides.task == ["seed=7"]
    assert OmegaConf.load(calls[2] / ".hydra" / "config.yaml").seed == 7


def test_python_runs_the_same(executed: Callable[..., list[Path]]) -> None:
    calls = executed()
    summary = tlrun.run(["method=source_only"])
    assert summary["schema"] == 1
    assert Path(summary["run_dir"]).resolve() == calls[0].resolve()
    assert tlrun.run.__module__ == "tlrun"
    with pytest.raises(ConfigError, match="did you mean"):
        tlrun.run(["method=dannn"])


def fail(error: BaseException) -> Callable[[Any], None]:
    def action(cfg: Any) -> None:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "state", "said"),
    [
        (RunError("loss is NaN"), 1, "failed", "tlrun: error: loss is NaN\n"),
        (ConfigError("no such thing"), 2, None, "tlrun: error: no such thing\n"),
        (Interrupted("stopped", 143), 143, "interrupted", "tlrun: interrupted: stopped\n"),
        (KeyboardInterrupt(), 130, "interrupted", "stopped; go on with: tlrun resume {run}\n"),
    ],
)
def test_failures_are_one_sentence_and_an_exit_code(
    executed: Callable[..., list[Path]],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    state: str | None,
    said: str,
) -> None:
    calls = executed(fail(error))
    assert main([]) == code
    assert capsys.readouterr().err.endswith(said.format(run=calls[0]))
    if state is None:  # refused: nothing is left
        assert not Path("outputs").exists()
    else:
        assert RunDir(calls[0]).read_status()["state"] == state


def test_a_fault_is_in_the_log_and_shown_with_debug(
    executed: Callable[..., list[Path]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = executed(fail(KeyError("weight")))
    assert main([]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "KeyError: 'weight' (test_main.py:" in said
    assert f"traceback in {calls[0]}/run.log" in said
    assert "Traceback" in (calls[0] / "run.log").read_text()
    monkeypatch.setenv("TLRUN_DEBUG", "")
    assert main(["--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_unwritable_place_is_one_sentence(
    executed: Callable[..., list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    executed()
    Path("outputs").write_text("a file")
    assert main([]) == 1
    said = capsys.readouterr().err
    assert "outputs" in said
    assert "hydra.run.dir=" in said
    assert said.count("\n") == 1


# ---- sweeps ---------------------------------------------------------------------------------


def test_a_failing_job_does_not_stop_the_others(
    executed: Callable[..., list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    def action(cfg: Any) -> None:
        if cfg.seed == 1:
            raise RunError("loss is NaN")

    calls = executed(action)
    assert main(["-m", "method=source_only,dann", "seed=0,1", "hydra.sweep.dir=sweep"]) == 1
    assert len(calls) == 4
    said = capsys.readouterr().err
    assert said.count("tlrun: error: loss is NaN") == 2
    assert "2 of 4 jobs completed: sweep" in said
    states = [RunDir(path).read_status()["state"] for path in runs_in("sweep")]
    assert sorted(states) == ["completed", "completed", "failed", "failed"]
    assert all("_digits_digitsm_seed" in path.name for path in runs_in("sweep"))


def test_an_interruption_ends_the_sweep(executed: Callable[..., list[Path]]) -> None:
    calls = executed(fail(Interrupted("stopped", 143)))
    assert main(["--multirun", "seed=0,1"]) == 143
    assert len(calls) == 1


def test_ctrl_c_in_a_dry_run_of_a_sweep_offers_nothing_to_go_on_with(
    executed: Callable[..., list[Path]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = executed(fail(KeyboardInterrupt()))
    words = ["--multirun", "seed=0,1", "dry_run=true"]
    assert main(words) == 130
    _job, *said = capsys.readouterr().err.splitlines()
    assert said == ["tlrun: interrupted: stopped; a dry run keeps nothing"]
    assert len(calls) == 1
    assert not calls[0].exists()

    def between_jobs(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tlrun.cli.train.run_job", between_jobs)
    assert main(words) == 130
    assert capsys.readouterr().err == "tlrun: interrupted\n"
    assert main(words[:2]) == 130
    assert "to go on with the sweep: tlrun resume" in capsys.readouterr().err


def test_a_job_that_fails_in_a_launchers_process_leaves_the_others(
    executed: Callable[..., list[Path]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executed()

    def elsewhere() -> None:
        state = current_sweep()
        assert state is not None
        state.folder = Path("sweep")
        for name in "ab":
            run = RunDir.create(Path("sweep", name))
            run.config.write_text("seed: 0")
            run.set_status("completed" if name == "a" else "failed")
        raise RunError("loss is NaN")

    monkeypatch.setattr("tlrun.cli.train.hydra.main", lambda **_: lambda job: elsewhere)
    assert main(["-m", "seed=0,1"]) == 1
    said = capsys.readouterr().err
    assert said == "tlrun: error: loss is NaN\n1 of 2 jobs completed: sweep\n"


def test_a_sweep_has_a_folder_of_its_own(executed: Callable[..., list[Path]]) -> None:
    calls = executed()
    assert main(["-m", "seed=0,1"]) == 0
    assert {path.parent for path in calls} == set(Path("outputs/sweeps").resolve().glob("*"))
    assert [path.name.split("seed")[1][0] for path in calls] == ["0", "1"]


def test_wrong_values_of_a_sweep_are_found_before_it_starts(
    executed: Callable[..., list[Path]], capsys: pytest.CaptureFixture[str], in_tmp: Path
) -> None:
    calls = executed()
    assert main(["-m", "optimizer.lr=0.1,-1", "seed=range(0,3)"]) == 2
    assert "optimizer.lr=-1: expected a number above 0" in capsys.readouterr().err
    assert calls == []
    assert list(in_tmp.iterdir()) == []


def test_a_key_of_the_methods_that_are_swept_over_is_known(
    executed: Callable[..., list[Path]],
) -> None:
    """Hydra composes a sweep once with the default method, `dann`, which has no such key."""
    calls = executed()
    words = ["method=shot,shot_im", "method.diversity=0.5", "data.augment.source={shift: 0.2}"]
    assert main(["-m", *words, "backbone=conv4,lenet", "backbone.head.hidden=[20, 30]"]) == 0
    configs = [OmegaConf.load(path / "config.yaml") for path in calls]
    assert [c.choices.method for c in configs] == ["shot", "shot", "shot_im", "shot_im"]
    assert all(c.method.diversity == 0.5 and c.backbone.head.hidden == [20, 30] for c in configs)
    typed = [list(OmegaConf.load(path / "overrides.yaml")) for path in calls]
    assert all("method.diversity=0.5" in words for words in typed)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("method.label_smoothing=null", None),
        ("method.hypothesis='12'", "12"),
        ("method.hypothesis=", ""),
    ],
)
def test_a_key_of_swept_methods_may_be_null_or_quoted_or_empty(
    executed: Callable[..., list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    word: str,
    value: str | None,
) -> None:
    monkeypatch.setattr("tlrun.cli.train.check", lambda args: [])  # what Hydra is told counts
    calls = executed()
    assert main(["-m", "method=shot,shot_im", word]) == 0
    key = word.partition("=")[0].removeprefix("method.")
    assert [OmegaConf.load(path / "config.yaml").method[key] for path in calls] == [value] * 2


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        (
            "method=shot,cdan,shot_im,dann",
            " for method=cdan, dann: of this sweep only shot, shot_im have it; leave",
        ),
        ("method=cdan,shot", " for method=cdan: of this sweep only shot has it; leave the others"),
        ("method=cdan,dann", ": Valid: "),
    ],
)
def test_the_swept_methods_that_lack_a_key_are_named(
    executed: Callable[..., list[Path]],
    capsys: pytest.CaptureFixture[str],
    in_tmp: Path,
    methods: str,
    sentence: str,
) -> None:
    calls = executed()
    assert main(["-m", methods, "method.diversity=0.5", "seed=0,1"]) == 2
    assert f"unknown key 'method.diversity'{sentence}" in capsys.readouterr().err
    assert calls == []
    assert list(in_tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("experiment=bundled/adaptation method.attach=features", " for method=source_only, dan, "),
        (
            "experiment=bundled/few_shot method.scale=5",
            "only protonet, matching_net, baseline_pp have",
        ),
        ("experiment=bundled/few_shot method=maml,anil method.scale=5", ": Valid: inner_lr"),
        ("experiment=bundled/osbp method.bogus=1", "gamma (osbp), label_smoothing (source_only), "),
    ],
)
def test_the_methods_of_a_presets_axis_are_asked_too(
    executed: Callable[..., list[Path]],
    capsys: pytest.CaptureFixture[str],
    in_tmp: Path,
    words: str,
    sentence: str,
) -> None:
    calls = executed()
    assert main(["-m", *words.split()]) == 2
    assert sentence in capsys.readouterr().err
    assert calls == []
    assert list(in_tmp.iterdir()) == []


def test_a_search_has_no_axis_of_its_preset() -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError

    words = ["experiment=bundled/few_shot", "method.scale=interval(1,20)", "search=optuna"]
    assert preset_axes(words, never) == []
    assert preset_axes(["experiment=bundled/few_shot,bundled/maml", "method.scale=1"], never) == []
    axes = preset_axes([*words[:1], "method.scale=1"], compose)
    assert [axis.partition(",")[0] for axis in axes] == ["method=protonet"]
    assert preset_axes(words[:1], compose) == []


@pytest.mark.parametrize("data", ["attributes", "pacs_dog_horse", "pacs_episodes", "xlsa17_images"])
def test_the_size_of_a_data_set_may_be_left_to_the_weights(data: str) -> None:
    cfg = compose([f"data={data}"])
    assert cfg.data.size == "auto"
    check_built(cfg)
    del cfg.data.normalize  # then nobody puts a number in its place
    with pytest.raises(ConfigError, match=r"data\.size=auto: expected a whole number"):
        check_built(cfg)
    cfg.data.size = -1
    with pytest.raises(ConfigError, match=r"data.size=-1: expected a whole number"):
        check_built(cfg)


def test_variants_are_a_sum_not_a_product() -> None:
    lists = list(variants(["a=1,2,3", "b=x,y", "c=5", "d=interval(0,1)"]))
    assert lists[0] == ["a=1", "b=x", "c=5"]
    assert len(lists) == 1 + 2 + 1


# ---- your own method ------------------------------------------------------------------------


def test_a_config_folder_of_ones_own(executed: Callable[..., list[Path]]) -> None:
    Path("my_conf/method").mkdir(parents=True)
    Path("my_conf/method/mine.yaml").write_text("# Mine\n_target_: my_methods.Mine\nwidth: 4\n")
    calls = executed()
    assert main(["seed=1", "--config-dir", "my_conf", "method=mine", "method.width=5"]) == 0
    assert OmegaConf.load(calls[0] / "config.yaml").method.width == 5
    assert "_mine_digits_digitsm_" in calls[0].name
    assert main(["list", "methods", "--config-dir", "my_conf"]) == 0
    assert main(["--config-dir", "nowhere", "method=mine"]) == 2


# ---- verbs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["reusme", "x"], "did you mean 'resume'?"),
        (["train"], "'train' is not needed"),
        (["frobnicate"], "neither a command nor key=value"),
        (["--debgu"], "unrecognized arguments: --debgu"),
        (["resume"], "required: RUN_DIR"),
        (["export", "x"], "required: --to"),
        (["export", "x", "--to", "onnyx"], "invalid choice"),
        (["predict", "x"], "required"),
        (["report", "nowhere"], "there is no folder nowhere"),
        (["reproduce", "nowhere"], "there is no folder nowhere"),
        (["list", "method"], "did you mean 'methods'?"),
        (["prepare", "data=nix"], "there is no data 'nix'"),
        (["."], "tlrun resume ."),
        (["-m", "launcher.n_jobs=2"], "unknown key 'launcher.n_jobs': it needs launcher=joblib"),
        (["-m", "search.trials=2"], "unknown key 'search.trials': it needs search=optuna"),
        (["-m", "search=optuna", "search.trails=2"], "'search.trails': did you mean 'trials'?"),
        (["-m", "search=optuna", "search.trials=few"], "search.trials=few: give a number"),
        (["-m", "search=optunna"], "did you mean 'optuna'? Valid: optuna, random\n"),
        (["-m", "launcher=joblib", "launcher.njobs=2"], "'launcher.njobs': did you mean 'n_jobs'?"),
        (
            ["-m", "launcher=joblib", "launcher.n_jobs=0"],
            "launcher.n_jobs=0: give a number of jobs",
        ),
    ],
)
def test_wrong_commands(
    words: list[str], sentence: str, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"tlrun {verb}" in HELP
    assert main([verb, "--help"]) == 0
    assert f"Example: tlrun {verb}" in capsys.readouterr().out
    assert parser_of(verb).prog == f"tlrun {verb}"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tlrun {tlrun.__version__}\n"


@pytest.fixture
def run_folder(in_tmp: Path) -> Path:
    run = RunDir.create(in_tmp / "sweep" / "run")
    from tlrun.config.compose import compose

    OmegaConf.save(compose(), run.config)
    return run.path


@pytest.mark.parametrize(
    ("module", "function", "words", "arguments"),
    [
        ("tlrun.experiment.resume", "resume", ["resume", "sweep/run"], (Path("sweep/run"), [])),
        ("tlrun.experiment.resume", "resume", ["resume", "sweep"], (Path("sweep"), [])),
        (
            "tlrun.experiment.reproduce",
            "reproduce",
            ["reproduce", "sweep/run", "seed=7"],
            (Path("sweep/run"), ["seed=7"], None),
        ),
        (
            "tlrun.experiment.reproduce",
            "reproduce",
            ["reproduce", "sweep", "--tolerance", "0.05"],
            (Path("sweep"), [], 0.05),
        ),
        (
            "tlrun.experiment.evaluate",
            "evaluate",
            ["evaluate", "sweep/run", "method=source_only"],
            (Path("sweep/run"), ["method=source_only"]),
        ),
        ("tlrun.report.pages.write", "write_report", ["report", "sweep"], (Path("sweep"), None)),
        (
            "tlrun.inference.export",
            "main",
            ["export", "sweep/run", "--to", "onnx"],
            (Path("sweep/run"), "onnx", None, "selected", None),
        ),
        (
            "tlrun.inference.predict",
            "main",
            [
                *("predict", "sweep/run", "a.png", "b", "--output", "c.csv"),
                *("--support", "new", "--classes", "more.csv", "--unknown-below", "0.5"),
            ],
            (
                *(Path("sweep/run"), [Path("a.png"), Path("b")], None, Path("c.csv"), "selected"),
                *(Path("new"), Path("more.csv"), 0.5, None, None),
            ),
        ),
    ],
)
def test_verbs_hand_over_their_arguments(
    run_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    function: str,
    words: list[str],
    arguments: tuple[Any, ...],
) -> None:
    seen: list[tuple[Any, ...]] = []

    def record(*given: Any) -> int:
        seen.append(given)
        return 0

    fake = ModuleType(module)
    setattr(fake, function, record)
    monkeypatch.setitem(sys.modules, module, fake)
    parent, _, name = module.rpartition(".")
    if parent in sys.modules and parent != "tlrun":
        monkeypatch.setattr(sys.modules[parent], name, fake, raising=False)
    assert main(words) == 0
    assert seen == [arguments]


def test_overrides_of_a_saved_config_are_checked_first(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", str(run_folder), "sed=7"]) == 2
    assert "unknown key 'sed': did you mean 'seed'?" in capsys.readouterr().err


def test_ctrl_c_amid_the_imports_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupting(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "tlrun.cli.train", Interrupting("tlrun.cli.train"))
    assert main(["method=dann"]) == 130
    assert capsys.readouterr().err == "tlrun: interrupted\n"


@pytest.mark.parametrize("verb", ["resume", "evaluate", "reproduce"])
def test_what_is_missing_is_named_alone(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb]) == 2
    said = capsys.readouterr().err
    assert "RUN_DIR" in said
    assert "key=value" not in said


def test_cfg_is_for_one_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cfg", "job", "-m", "seed=0,1"]) == 2
    assert "leave -m out" in capsys.readouterr().err


def test_a_warning_of_the_configuration_is_given_once(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is read before torch is imported, and again by the work itself."""
    run = RunDir.create(in_tmp / "run")
    words = ["data=pacs", "data.source=photo", "data.target=sketch"]
    OmegaConf.save(compose(words), run.config)
    run.set_status("completed")
    monkeypatch.setattr(
        "tlrun.experiment.evaluate.evaluate", lambda path, words: load_config(run.config, words)
    )
    assert main(["evaluate", "run", "data.target=photo"]) == 0
    assert [m for m in caplog.messages if "figures are of what" in m] == [
        "data.source and data.target are both 'photo': these figures are of what the run has "
        "learned from"
    ]
