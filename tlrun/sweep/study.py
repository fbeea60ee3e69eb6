"""The trials of a search, what they say about the next one, and the file that has them.

Each question to Optuna has a sampler and a seed of its own, so an answer depends only on the trials
before it: a search that was interrupted goes on as if it had not been, and without search.json the
same questions lead to the same jobs. Imports neither torch nor, before the first question, Optuna.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from tlrun.config.compose import resolve_and_check
from tlrun.config.hashes import fresh_seeds_command, names_jobs
from tlrun.config.overrides import key_of
from tlrun.config.value_types import matches
from tlrun.errors import ConfigError, RunError
from tlrun.evaluate.score import selected_score
from tlrun.files.locks import LockTaken, file_lock
from tlrun.run_folder.json_file import Damaged
from tlrun.run_folder.run_dir import RunDir
from tlrun.sweep.space import SearchCommand, Value

FILE = "search.json"
SEARCH_LOCK = ".search.lock"
RANDOM_FIRST = 8  # trials before TPE has enough to go by; fixed: it decides what is asked


@dataclass
class Settings:
    """The keys of conf/search/optuna.yaml."""

    sampler: str
    trials: int
    seed: int
    start: bool
    parallel: int | str
    space: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sampler not in ("tpe", "random"):
            raise ConfigError(f"search.sampler={self.sampler}: choose tpe or random")
        if not (isinstance(self.trials, int) and self.trials > 0):
            raise ConfigError(f"search.trials={self.trials}: give a number of at least 1")
        if not (self.parallel == "auto" or (isinstance(self.parallel, int) and self.parallel > 0)):
            raise ConfigError(f"search.parallel={self.parallel}: give auto or a number")

    def at_a_time(self, launcher: int) -> int:
        """Trials that are asked for together. launcher: how many jobs that runs at once.

        `auto` is at most a quarter of all: what is asked together learns nothing from each other.
        """
        if self.parallel == "auto":
            return min(launcher, max(1, self.trials // 4))
        return int(self.parallel)


@dataclass
class Trial:
    """state: waiting, running, completed, guarded (no evaluation passed the guard), failed.

    value: the mean over the jobs of the rule's figure at the checkpoint it chose.
    target_test_accuracy: the same of the accuracy by test labels; nothing looks at it.
    """

    number: int
    params: dict[str, Value]
    jobs: list[str] = field(default_factory=list)
    value: float | None = None
    state: str = "waiting"
    target_test_accuracy: float | None = None
    start: bool = False  # the setting as it is: its words are the command's alone

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Trial:
        """What `row` wrote; keys that are no fields are passed over."""
        return cls(**{key: row[key] for key in cls.__dataclass_fields__ if key in row})

    def row(self) -> dict[str, Any]:
        return {**asdict(self), "job": self.jobs[0] if self.jobs else None}


class Study:
    """base: the experiment as it is, with its `hydra` node. folder: the sweep's.

    Raises ConfigError for what cannot be searched.
    """

    def __init__(
        self, settings: Settings, command: SearchCommand, base: DictConfig, folder: Path
    ) -> None:
        self.settings, self.command, self.folder = settings, command, folder
        self.space = command.space
        self.rule = str(resolve_and_check(base, base.hydra).select.name)
        self._refuse_what_cannot_be_searched(base)
        self.start = {d.key: d.value_in(base) for d in self.space}
        self.trials: list[Trial] = []

    def _refuse_what_cannot_be_searched(self, base: DictConfig) -> None:
        if self.rule == "last":
            raise ConfigError(
                "a search needs a score to compare settings by, and select=last has none: choose "
                "a validator, see `tlrun list selectors`"
            )
        if not self.space:
            method = base.hydra.runtime.choices.method
            raise ConfigError(
                f"nothing to search: there is no conf/search/space/{method}.yaml, or all of "
                "its keys are fixed. Name what to search, as in "
                "'optimizer.lr=tag(log, interval(1e-4, 1e-1))'"
            )
        missing = [d.key for d in self.space if not d.is_in(base)]
        if missing:
            raise ConfigError(
                f"the search space names {missing[0]}, which this experiment does not have"
            )

    # ---- search.json ------------------------------------------------------------------------

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Two processes would ask the same questions. Raises RunError if another is searching."""
        with ExitStack() as stack:
            try:
                stack.enter_context(file_lock(self.folder / SEARCH_LOCK, seconds=0))
            except LockTaken as error:
                raise RunError(
                    f"another process is searching in {self.folder}: wait for it, or start a "
                    "search of your own with sweep.new=true"
                ) from error
            yield

    def read(self) -> None:
        """The trials that an earlier command left. Raises ConfigError if it was another search."""
        file = self.folder / FILE
        if not file.is_file():
            return
        saved = RunDir.read_json(file)
        if not matches(saved.get("trials"), list[dict]):
            raise Damaged(f"{file} is damaged: its trials are missing; give sweep.new=true")
        if saved.get("search") != self._identity():
            raise ConfigError(
                f"{self.folder} holds a search of other settings or another space: give "
                "hydra.sweep.dir=... or sweep.new=true"
            )
        self.trials = [Trial.read(row) for row in saved["trials"]]
        for trial in self.trials:  # they become overrides: nothing but values of the space
            if not trial.start and not self._holds(trial):
                raise ConfigError(
                    f"{file}: trial {trial.number} has values outside of the space that is "
                    "searched: the file was changed by hand; remove it, and the finished jobs are "
                    "found again"
                )

    def _holds(self, trial: Trial) -> bool:
        """Whether every value of a trial lies in the dimension of its key."""
        dimensions = {dimension.key: dimension for dimension in self.space}
        return all(
            key in dimensions and dimensions[key].holds(value)
            for key, value in trial.params.items()
        )

    def _identity(self) -> dict[str, Any]:
        """What a search is; the number of its trials may grow."""
        return {
            "space": {d.key: d.text for d in self.space},
            "words": sorted(word for word in self.command.fixed if names_jobs(key_of(word))),
            "seeds": list(self.command.seeds),
            "seed": self.settings.seed,
            "start": self.settings.start,
        }

    def write(self) -> None:
        RunDir.write_json(
            self.folder / FILE,
            {
                "sampler": self.settings.sampler,
                "direction": "maximize",
                "metric": self.rule,
                "search": self._identity(),
                "trials": [trial.row() for trial in self.trials],
            },
        )

    # ---- trials -----------------------------------------------------------------------------

    def ask(self, at_most: int) -> list[Trial]:
        """New trials, up to the number wanted. They know of each other, not of the outcome."""
        asked = []
        for number in range(
            len(self.trials), min(self.settings.trials, len(self.trials) + at_most)
        ):
            if number == 0 and self.settings.start:
                params = {k: v for k, v in self.start.items() if v is not None}
                trial = Trial(0, params, start=True)
            else:
                trial = Trial(number, self.suggest(number))
            self.trials.append(trial)
            asked.append(trial)
        return asked

    def suggest(self, number: int) -> dict[str, Value]:
        """A setting for trial `number`, from those before it."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        states = {"completed": "COMPLETE", "guarded": "PRUNED", "failed": "FAIL"}  # else running
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(direction="maximize", sampler=self._sampler(number))
            distributions = {d.key: d.distribution() for d in self.space}
            for trial in self.trials[:number]:
                if not all(d.holds(trial.params.get(d.key)) for d in self.space):
                    continue  # the start, where it lies outside
                state = optuna.trial.TrialState[states.get(trial.state, "RUNNING")]
                value = trial.value if trial.state == "completed" else None
                study.add_trial(
                    optuna.trial.create_trial(
                        params=trial.params, distributions=distributions, value=value, state=state
                    )
                )
            asked = study.ask(distributions).params
        return {d.key: d.rounded(asked[d.key]) for d in self.space}

    def _sampler(self, number: int) -> Any:
        """Optuna's, with a seed of its own for each question."""
        from optuna.samplers import RandomSampler, TPESampler

        seed = 10_000 * self.settings.seed + number
        if self.settings.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(
            seed=seed, n_startup_trials=RANDOM_FIRST, multivariate=True, constant_liar=True
        )

    def overrides(self, trial: Trial) -> list[list[str]]:
        """The overrides of a trial's jobs, one for each seed."""
        params = [] if trial.start else [f"{key}={value}" for key, value in trial.params.items()]
        return [[*self.command.fixed, *params, f"seed={seed}"] for seed in self.command.seeds]

    def note(self, trial: Trial) -> None:
        """Read what became of a trial's jobs in their folders."""
        runs = [RunDir(self.folder / job) for job in trial.jobs]
        scores = [score for score in map(selected_score, runs) if score is not None]
        if len(scores) < len(runs):
            states = {run.read_status().get("state") for run in runs}
            trial.state = "running" if states <= {"running", "completed"} else "failed"
            return
        values = [score.value for score in scores if score.value is not None]
        tests = [s.target_test_accuracy for s in scores if s.target_test_accuracy is not None]
        trial.state = "completed" if len(values) == len(runs) else "guarded"
        trial.value = sum(values) / len(values) if trial.state == "completed" else None
        trial.target_test_accuracy = sum(tests) / len(tests) if len(tests) == len(runs) else None

    def verdict(self) -> str:
        """The best setting, against the start, and how to try it on fresh seeds."""
        done = [trial for trial in self.trials if trial.value is not None]
        if not done:
            return "no trial of the search was completed"
        best = max(done, key=lambda trial: (trial.value, -trial.number))
        start = next((t for t in done if t.start), None)
        against = f" (the start: {start.value:.4g})" if start is not None else ""
        setting = ", ".join(f"{key}={value}" for key, value in best.params.items())
        without = len(self.trials) - len(done)
        left_out = f" ({without} left out: no value)" if without else ""
        trials = f"{len(done)} trial{'s' * (len(done) != 1)}{left_out}"
        return (
            f"best of {trials} by {self.rule}: trial {best.number}, "
            f"{best.value:.4g}{against}: {setting or 'as it is'}\n"
            f"on fresh seeds: {fresh_seeds_command(self.overrides(best)[0], self.command.seeds)}"
        )
