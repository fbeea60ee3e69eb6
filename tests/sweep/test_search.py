"""Searches: spaces, what is asked and when, going on, and what they never look at."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest
from omegaconf import OmegaConf

from tlrun.cli.main import main
from tlrun.config.compose import compose
from tlrun.config.packaged import conf_dir
from tlrun.errors import ConfigError, Interrupted, RunError
from tlrun.run_folder.record import recorded
from tlrun.run_folder.run_dir import RunDir, runs_in
from tlrun.sweep.space import Dimension, read_command
from tlrun.sweep.study import Settings, Study

pytest.importorskip("optuna")
METHODS = sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))
NAMED = "hydra.sweep.dir=sweep"
LR = "optimizer.lr=tag(log, interval(1e-4, 1e-1))"


def quality(cfg: Any) -> float:
    """Best at a learning rate of 0.01 and a trade-off of 0.3."""
    lr, trade_off = cfg.optimizer.lr, cfg.method.trade_off
    return 3.0 - abs(math.log10(lr) + 2) - abs(math.log10(trade_off) + 0.5)


class Jobs:
    """Stands in for training; `ran` has (lr, trade_off, seed) of each job, in order."""

    def __init__(self) -> None:
        self.ran: list[tuple[float, float, int]] = []
        self.action: Callable[[Any], None] = lambda cfg: None
        self.figure: Callable[[Any], float | None] = quality
        self.test = 0.5

    def execute(self, run: RunDir) -> dict[str, Any]:
        cfg: Any = OmegaConf.load(run.config)
        self.ran.append((cfg.optimizer.lr, cfg.method.trade_off, cfg.seed))
        with recorded(run):
            self.action(cfg)
            value = self.figure(cfg)
            row = {"step": 8, "split": "eval", "validator/information_maximization": value}
            run.metrics.write_text(json.dumps(row) + "\n")
            about = {"selection_rule": cfg.select.name, "selection_fell_back": value is None}
            chosen = {"selected": {"step": 8, "target_test/accuracy": self.test}}
            run.write_json(run.summary, {**about, **chosen})
            run.set_status("completed")
            run.report.touch()
            run.plots.mkdir(exist_ok=True)
        return {}

    def search(self, *words: str) -> tuple[int, list[tuple[float, float, int]]]:
        """The exit code of a search with DANN, and the jobs that it ran."""
        self.ran.clear()
        code = main(["-m", "search=optuna", *words])
        return code, list(self.ran)


@pytest.fixture
def jobs(instead_of_training: Callable[[Callable[..., Any]], None]) -> Jobs:
    made = Jobs()
    instead_of_training(made.execute)
    return made


def record(folder: str = "sweep") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "search.json").read_text())
    return found


# ---- spaces -----------------------------------------------------------------------------------


def test_every_method_has_a_space() -> None:
    assert sorted(path.stem for path in (conf_dir() / "search/space").glob("*.yaml")) == METHODS


@pytest.mark.parametrize("method", METHODS)
def test_a_space_names_keys_that_exist_and_its_ends_are_valid(method: str) -> None:
    preset: Any = OmegaConf.load(conf_dir() / "search/space" / f"{method}.yaml")
    space = [Dimension(str(key), str(text)) for key, text in preset.items()]
    assert space
    ends = [f"{d.key}={d.choices[-1] if d.choices else d.bounds[0]}" for d in space]
    cfg = compose([f"method={method}", "search=optuna", *ends], keep_hydra=True)
    assert cfg.hydra.sweeper.space == preset
    for dimension in space:
        assert dimension.is_in(cfg), dimension.key
        assert dimension.distribution() is not None


def test_the_start_lies_in_the_space_of_dann() -> None:
    cfg = compose(["search=optuna"], keep_hydra=True)
    for key, text in cfg.hydra.sweeper.space.items():
        dimension = Dimension(str(key), str(text))
        assert dimension.holds(dimension.value_in(cfg))


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("interval(0.1, 1)", [0.1, 0.55, 1], [0.05, 1.1, "a", None]),
        ("tag(log, interval(1e-4, 1e-1))", [0.001], [1]),
        ("int(interval(1, 4))", [1, 4], [1.5, 5]),
        ("range(1, 7, 2)", [1, 3, 5], [2, 7]),
        ("choice(1, two)", ["1", "two"], ["three", 1.5]),
        ("a,b", ["a"], ["c"]),
    ],
)
def test_dimensions(text: str, inside: list[Any], outside: list[Any]) -> None:
    dimension = Dimension("key", text)
    assert all(dimension.holds(value) for value in inside)
    assert not any(dimension.holds(value) for value in outside)
    distribution = dimension.distribution()
    assert all(distribution._contains(distribution.to_internal_repr(value)) for value in inside)


def test_the_command_line_wins_over_a_preset_space() -> None:
    preset = {
        "optimizer.lr": "interval(0.1, 1)",
        "method.trade_off": "interval(0.1, 1)",
        "a.b": "1,2",
    }
    typed = ["optimizer.lr=0.5", "method.trade_off=interval(2, 3)", "seed=4,5", "data=mnist_usps"]
    command = read_command(typed, preset)
    assert command.fixed == ["optimizer.lr=0.5", "data=mnist_usps"]
    assert {d.key: d.text for d in command.space} == {
        "a.b": "1,2",
        "method.trade_off": "interval(2, 3)",
    }
    assert command.seeds == [4, 5]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["method=dann,cdan"], "one method at a time"),
        (["select=last"], "select=last has none"),
        (["search.trials=0"], "search.trials=0"),
        (["search.sampler=grid"], "choose tpe or random"),
        (["search.tirals=3"], "tirals"),
        (["seed=interval(1, 4)"], "seed"),
        (["method.tradeoff=interval(1, 4)"], "tradeoff"),
        (["optimizer.lr=interval(1"], "cannot read"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(
    words: list[str], says: str, jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    code, ran = jobs.search(*words, NAMED)
    assert (code, ran) == (2, [])
    said = capsys.readouterr().err.strip()
    assert says in said
    assert said.count("\n") == 0


# ---- what is asked ----------------------------------------------------------------------------


def simulated(
    trials: int, figure: Callable[[Any], float | None] = quality, **settings: Any
) -> Study:
    """A search without jobs: trials one by one, each with its value at once."""
    base = compose(["search=optuna"], keep_hydra=True)
    given = {"sampler": "tpe", "seed": 0, "start": True, "parallel": 1} | settings
    chosen = Settings(trials=trials, space=base.hydra.sweeper.space, **given)
    study = Study(chosen, read_command([], chosen.space), base, Path("nowhere"))
    while batch := study.ask(1):
        for trial in batch:
            lr, trade_off = trial.params["optimizer.lr"], trial.params["method.trade_off"]
            cfg = {"optimizer": {"lr": lr}, "method": {"trade_off": trade_off}}
            trial.value = figure(OmegaConf.create(cfg))
            trial.state = "guarded" if trial.value is None else "completed"
    return study


def test_a_search_writes_down_what_it_asked_and_what_came_of_it(
    jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    code, ran = jobs.search("search.trials=3", NAMED)
    assert (code, len(ran), ran[0]) == (0, 3, (0.001, 1.0, 0))  # the start is trial 0
    found = record()
    assert (found["sampler"], found["direction"]) == ("tpe", "maximize")
    assert found["metric"] == "information_maximization"
    trials = found["trials"]
    assert [trial["number"] for trial in trials] == list(range(3))
    assert {trial["state"] for trial in trials} == {"completed"}
    for trial, (lr, trade_off, _) in zip(trials, ran, strict=True):
        assert trial["params"] == {"optimizer.lr": lr, "method.trade_off": trade_off}
        cfg = OmegaConf.load(Path("sweep", trial["job"], "config.yaml"))
        assert trial["value"] == pytest.approx(quality(cfg))
        assert trial["target_test_accuracy"] == 0.5
    values = [trial["value"] for trial in trials]
    said = capsys.readouterr().err
    assert (
        f"best of 3 trials by information_maximization: trial {values.index(max(values))}" in said
    )
    assert "on fresh seeds: tlrun -m " in said
    assert " seed=1,2,3\n" in said


def test_tpe_learns_from_the_trials_before() -> None:
    values = [trial.value or 0.0 for trial in simulated(24).trials]
    assert max(values) > values[0] + 0.5
    assert max(values[8:]) > max(values[:8])
    assert sum(values[16:]) / 8 > sum(values[1:9]) / 8


def test_the_same_search_asks_the_same_and_another_seed_does_not() -> None:
    first, again = simulated(12), simulated(12)
    assert [trial.params for trial in first.trials] == [trial.params for trial in again.trials]
    other = simulated(12, seed=1)
    assert other.trials[0].params == first.trials[0].params
    assert all(
        a.params != b.params for a, b in zip(first.trials[1:], other.trials[1:], strict=True)
    )
    drawn = simulated(12, sampler="random")
    assert len({repr(trial.params) for trial in drawn.trials}) == 12


def test_a_search_never_looks_at_test_labels() -> None:
    blind = simulated(12)
    seen = simulated(11)
    for trial in seen.trials:
        trial.target_test_accuracy = 1.0 - trial.number / 20
    seen.settings.trials = 12
    assert seen.ask(1)[0].params == blind.trials[11].params


def test_tpe_keeps_away_from_settings_that_no_evaluation_of_passed_the_guard() -> None:
    study = simulated(24, lambda cfg: None if cfg.optimizer.lr > 0.003 else 1.0)
    late = [trial.params["optimizer.lr"] <= 0.003 for trial in study.trials[12:]]
    assert sum(late) > len(late) / 2


def test_several_seeds_are_one_trial(jobs: Jobs) -> None:
    jobs.figure = lambda cfg: quality(cfg) + cfg.seed
    code, ran = jobs.search("search.trials=2", "seed=0,1", NAMED)
    assert (code, len(ran)) == (0, 4)
    for number, trial in enumerate(record()["trials"]):
        both = ran[2 * number : 2 * number + 2]
        assert [seed for *_, seed in both] == [0, 1]
        assert len(trial["jobs"]) == 2
        cfg = OmegaConf.load(Path("sweep", trial["jobs"][0], "config.yaml"))
        assert trial["value"] == pytest.approx(quality(cfg) + 0.5)


def test_a_trial_without_an_eligible_evaluation_is_no_candidate(jobs: Jobs) -> None:
    jobs.figure = lambda cfg: None if cfg.optimizer.lr > 0.003 else quality(cfg)
    assert (
        jobs.search(
            "search.trials=2", "search.start=false", "optimizer.lr=interval(0.0031, 0.004)", NAMED
        )[0]
        == 0
    )
    trials = record()["trials"]
    guarded = [trial for trial in trials if trial["params"]["optimizer.lr"] > 0.003]
    assert guarded
    assert all((t["state"], t["value"]) == ("guarded", None) for t in guarded)


def test_choices_and_groups(jobs: Jobs) -> None:
    words = [
        "optimizer=adam,adamw",
        "method.lambda_schedule=choice(sigmoid, linear)",
        "search.trials=2",
    ]
    assert jobs.search(*words, "search.start=false", NAMED)[0] == 0
    for trial in record()["trials"]:
        cfg = OmegaConf.load(Path("sweep", trial["job"], "config.yaml"))
        assert cfg.optimizer.name == trial["params"]["optimizer"]
        assert cfg.method.lambda_schedule == trial["params"]["method.lambda_schedule"]


# ---- going on ---------------------------------------------------------------------------------


def test_an_interrupted_search_goes_on_as_if_it_had_not_been(jobs: Jobs) -> None:
    whole = jobs.search("search.trials=3", "hydra.sweep.dir=whole")[1]

    def stop(cfg: Any) -> None:
        if len(jobs.ran) == 2:
            raise Interrupted("stopped", 143)

    jobs.action = stop
    code, before = jobs.search("search.trials=3", NAMED)
    assert (code, len(before)) == (143, 2)
    assert record()["trials"][1]["state"] == "running"
    jobs.action = lambda cfg: None
    code, after = jobs.search("search.trials=3", NAMED)
    assert (code, before[:1] + after) == (0, whole)
    assert record()["trials"] == record("whole")["trials"]
    assert jobs.search("search.trials=3", NAMED) == (0, [])
    assert len(runs_in("sweep")) == 3


def test_without_its_record_a_search_finds_its_jobs_by_their_hash(jobs: Jobs) -> None:
    assert jobs.search("search.trials=2", NAMED)[0] == 0
    before = record()
    Path("sweep/search.json").unlink()
    assert jobs.search("search.trials=2", NAMED) == (0, [])
    assert record() == before


def test_more_trials_go_on_in_the_same_folder(jobs: Jobs) -> None:
    assert len(jobs.search("search.trials=1")[1]) == 1
    assert len(jobs.search("search.trials=3")[1]) == 2
    (folder,) = Path("outputs/sweeps").iterdir()
    assert len(record(str(folder))["trials"]) == 3
    jobs.ran.clear()
    assert main(["resume", str(folder), "search.trials=4"]) == 0
    assert len(jobs.ran) == 1


def test_a_failed_trial_stops_nothing_and_is_tried_again(jobs: Jobs) -> None:
    def fail(cfg: Any) -> None:
        if len(jobs.ran) == 2:
            raise RunError("loss is NaN")

    jobs.action = fail
    code, ran = jobs.search("search.trials=3", NAMED)
    assert (code, len(ran)) == (1, 3)
    assert [trial["state"] for trial in record()["trials"]].count("failed") == 1
    jobs.action = lambda cfg: None
    assert jobs.search("search.trials=3", NAMED) == (0, [ran[1]])
    assert {trial["state"] for trial in record()["trials"]} == {"completed"}


def test_trials_at_once_are_asked_together(jobs: Jobs) -> None:
    batches: list[int] = []
    basic = importlib.import_module("hydra._internal.core_plugins.basic_launcher").BasicLauncher
    launch = basic.launch

    def counted(self: Any, words: Any, initial_job_idx: int) -> Any:
        batches.append(len(words))
        return launch(self, words, initial_job_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(basic, "launch", counted)
        code, ran = jobs.search("search.trials=3", "search.parallel=2", NAMED)
    assert (code, batches) == (0, [2, 1])
    assert len(set(ran)) == 3


def test_another_search_in_the_same_folder_is_refused(
    jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    assert jobs.search("search.trials=1", NAMED)[0] == 0
    before = Path("sweep/search.json").read_text()
    capsys.readouterr()
    code, ran = jobs.search("search.trials=1", LR, NAMED)
    assert (code, ran) == (1, [])  # the folder has jobs, so its table is written again
    assert "holds a search of other settings" in capsys.readouterr().err
    assert Path("sweep/search.json").read_text() == before
    assert main(["resume", "sweep"]) == 0  # the refused command is not part of it


def test_a_search_that_is_refused_is_no_command_of_its_folder(jobs: Jobs) -> None:
    assert jobs.search("search.trials=2", "select=last", NAMED) == (2, [])
    assert not Path("sweep/sweep.yaml").exists()
    assert jobs.search("search.trials=1", NAMED)[0] == 0
    assert Path("sweep/sweep.yaml").is_file()


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("optimizer.lr=interval(1e-2, 1e-4)", "low <= high"),
        ("optimizer.lr=tag(log, interval(0, 1))", "low > 0"),
    ],
)
def test_a_range_that_holds_nothing_is_refused_before_the_first_trial(
    jobs: Jobs, typed: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert jobs.search("search.trials=2", typed, NAMED) == (2, [])
    said = capsys.readouterr().err
    assert f"{typed} is no range to search: " in said
    assert why in said


def test_the_space_of_another_method_can_be_chosen(jobs: Jobs) -> None:
    assert jobs.search("search.trials=1", "search/space=deep_coral", NAMED)[0] == 0
    space = json.loads(Path("sweep/search.json").read_text())["search"]["space"]
    assert space["method.trade_off"] == "tag(log, interval(0.1, 30))"


def test_ctrl_c_between_two_trials_says_how_to_go_on(
    jobs: Jobs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Study, "note", stop)
    assert jobs.search("search.trials=2", NAMED)[0] == 130
    said = capsys.readouterr()
    assert f"tlrun resume {Path('sweep').absolute()}" in said.out + said.err
    assert said.err.endswith("tlrun: interrupted\n")


def test_two_processes_never_search_in_one_folder(
    jobs: Jobs, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("sweep").mkdir()
    with filelock.FileLock("sweep/.search.lock"):
        code, ran = jobs.search("search.trials=2", NAMED)
    assert (code, ran) == (1, [])
    assert "another process is searching" in capsys.readouterr().err
    assert not Path("sweep/search.json").exists()


def test_the_oracle_is_used_only_when_asked_for(jobs: Jobs) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.target_test=false"):
        importlib.import_module("tlrun.experiment.assemble").open_session(
            RunDir("none"),
            OmegaConf.to_container(compose(["select=oracle", "evaluate.target_test=false"])),
        )
    jobs.figure = lambda cfg: None
    assert jobs.search("search.trials=1", "select=oracle", NAMED)[0] == 0
    assert record()["metric"] == "oracle"


def test_trials_at_once_are_at_most_a_quarter_unless_typed() -> None:
    settings = Settings(sampler="tpe", trials=20, seed=0, start=True, parallel="auto")
    assert [settings.at_a_time(jobs) for jobs in (1, 4, 64)] == [1, 4, 5]
    settings.parallel = 10
    assert settings.at_a_time(1) == 10
