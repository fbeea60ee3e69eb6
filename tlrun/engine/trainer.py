"""The trainer: one for every method.

It reads top to bottom: `fit` goes through the phases, `_run_phase` through the steps of one,
`_take_step` draws the batches and lets `TrainingStep` make the updates, `_follow_cadence` logs,
evaluates and saves, `_save` and `restore` are each other's inverse. Nothing here knows any method
by name.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from tlrun.config.hashes import config_hash
from tlrun.data.pipeline.activations import as_given
from tlrun.data.pipeline.streams import Stream
from tlrun.engine import checkpoint
from tlrun.engine.durations import Cadence, total_steps
from tlrun.engine.frozen import frozen_kept, is_plain
from tlrun.engine.hooks import Hooks, StepInfo
from tlrun.engine.interrupt import StopRequest
from tlrun.engine.metrics_log import MetricsLog
from tlrun.engine.optimizers import learning_rate_factor, make_optimizer, merged, set_learning_rate
from tlrun.engine.precision import autocast
from tlrun.engine.selection_checkpoints import SelectionCheckpoints
from tlrun.engine.setup import TrainingSetup
from tlrun.engine.step import TrainingStep
from tlrun.errors import ConfigError, Interrupted
from tlrun.methods.base import Phase, Progress
from tlrun.models.batch_norm import has_batch_norm, norms_with_statistics, set_held_eval

log = logging.getLogger(__name__)


@dataclass
class Counters:
    """What the summary reports about the work done, over all sittings up to a checkpoint.

    wall_seconds: all time; earlier_seconds: that before the present sitting, which began at
    `sitting` (time.time()); start_seconds: until training began.
    """

    updates: int = 0
    images_seen: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    start_seconds: float = 0.0
    wall_seconds: float = 0.0
    earlier_seconds: float = 0.0
    sitting: float = 0.0


@dataclass
class PhaseRun:
    """A phase while it is trained. index: its number. frozen: stages that are held still."""

    index: int
    phase: Phase
    total: int
    frozen: list[str]
    cadence: Cadence
    schedule: Mapping[str, Any]
    optimizer: torch.optim.Optimizer
    step: TrainingStep
    streams: dict[str, Stream]
    bar: Any

    @property
    def shows_bar(self) -> bool:
        return not self.bar.disable

    def close(self) -> None:
        self.bar.close()
        for stream in self.streams.values():
            stream.close()


class Trainer:
    """Trains the net through all phases, from the start or from `checkpoints/last.pt`.

    evaluates: False = no evaluation, hence no selection (a rehearsal).
    Raises Interrupted after SIGINT/SIGTERM while it takes steps, RunError when a loss is not finite
    or the disk is full.
    """

    def __init__(
        self, setup: TrainingSetup, hooks: Hooks | None = None, *, evaluates: bool = True
    ) -> None:
        self.setup, self.hooks, self.evaluates = setup, hooks or Hooks(), evaluates
        self.cfg, self.trainer_cfg = setup.cfg, setup.cfg["trainer"]
        self.run_dir, self.net, self.data = setup.run_dir, setup.net, setup.data
        self.method, self.process, self.device = setup.method, setup.process, setup.device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=setup.precision == "fp16")
        self.stop = StopRequest()
        self.counters = Counters()
        self.global_step = 0  # over all phases: the "step" of rows and checkpoints
        self.metrics_log = MetricsLog(self.run_dir, self.process, self.device, setup.rules)
        self.selection = SelectionCheckpoints(setup, self.metrics_log)
        self.config_hash = config_hash(self.cfg)
        self._clock = 0.0  # time.perf_counter() since which nothing but steps was done

    # ---- the whole run --------------------------------------------------------------------

    def fit(self) -> None:
        """Run every phase that is not done yet."""
        saved = checkpoint.load_last(self.run_dir.checkpoints)
        self._count_from(saved)
        try:
            self.metrics_log.open(self.cfg["logger"], saved)
            if self.process.first:
                self.selection.take_back()
            self._run_phases(saved)
            if self.process.first:
                self.hooks.before_publish()
                self.selection.publish()
            self.process.wait()
        finally:
            self.metrics_log.close()

    def _run_phases(self, saved: dict[str, Any] | None) -> None:
        """Those that are done are only built, so that the net has all parts."""
        begin = int(saved["phase_index"]) if saved else 0
        for index, phase in enumerate(self.setup.phases):
            parts_before = set(self.net.parts)
            self.setup.build_phase(phase)
            if index >= begin:
                self._run_phase(index, phase, parts_before, saved if index == begin else None)

    def _count_from(self, saved: Mapping[str, Any] | None) -> None:
        self.counters = Counters(**saved["counters"]) if saved else Counters()
        self.counters.earlier_seconds = self.counters.wall_seconds
        self.counters.sitting = self.setup.began
        self.counters.start_seconds += time.time() - self.setup.began

    def total_steps(self, phase: Phase) -> int:
        return total_steps(phase, self.trainer_cfg, self.data)

    # ---- one phase ------------------------------------------------------------------------

    def _run_phase(
        self, index: int, phase: Phase, parts_before: set[str], saved: dict[str, Any] | None
    ) -> None:
        """From its start, or from `saved`, to its last step."""
        frozen = self._enter(index, phase, parts_before, saved)
        total = self.total_steps(phase)
        if total > 0:
            self._train(index, phase, total, frozen, saved)
        elif saved is not None:
            self.restore(saved, None)
        else:
            self._evaluate(phase, None)
            self._save(index, phase, 0, None)
        self._set_trainable(frozen, True)  # the next phase decides anew

    def _enter(
        self, index: int, phase: Phase, parts_before: set[str], saved: Mapping[str, Any] | None
    ) -> list[str]:
        """Initial weights, frozen stages (returned), and what a phase does once at its start."""
        if saved is None:
            self.setup.carry_over(index, parts_before)  # first: frozen stages may depend on it
        else:
            self.net.carried = tuple(saved.get("carried", ()))
        frozen = self.net.select(phase.frozen)
        self._set_trainable(frozen, False)
        if self.method.frozen_statistics:
            self._hold_statistics(index, saved)
        if saved is None:
            self.method.start(phase, self.net, self.data)
            self.process.broadcast(self.net.state_dict().values())
            for term in self.setup.terms.values() if phase.terms is True else ():
                term.start(self.net, self.data)
            if self.process.world > 1:  # one start for all, then dropout of their own
                torch.manual_seed(torch.initial_seed() + 1000 * (self.process.rank + 1))
        return frozen

    def _hold_statistics(self, index: int, saved: Mapping[str, Any] | None) -> None:
        """Of what comes with statistics; a first phase that learns them has none to hold."""
        last = index == len(self.setup.phases) - 1
        if saved is not None:
            self.net.hold_statistics(saved["held"])
        elif last or norms_with_statistics(self.net):
            self.net.hold_statistics()
        if last and not has_batch_norm(self.net):
            log.warning("batch_norm=frozen changes nothing: this net has no batch norm")

    def _set_trainable(self, stages: list[str], trainable: bool) -> None:
        for stage in stages:
            for parameter in self.net.parameters_in(stage):
                parameter.requires_grad_(trainable)

    def _train(
        self,
        index: int,
        phase: Phase,
        total: int,
        frozen: list[str],
        saved: dict[str, Any] | None,
    ) -> None:
        """The steps of a phase that are left."""
        optimizer_cfg = merged(self.cfg["optimizer"], phase.optimizer)
        optimizer = make_optimizer(optimizer_cfg, self.net, phase.parts)
        done = 0 if saved is None else self.restore(saved, optimizer)
        self._set_training_mode(frozen)
        with frozen_kept(self.setup, phase, total):
            if saved is None:
                self._evaluate(phase, 0)  # where the curves of the phase begin
            self._clock = time.perf_counter()
            run = PhaseRun(
                index,
                phase,
                total,
                frozen,
                cadence=Cadence.of(self.trainer_cfg, total, own_length=phase.steps is not None),
                schedule=merged(self.cfg["schedule"], phase.schedule),
                optimizer=optimizer,
                step=TrainingStep(self.setup, phase, optimizer, self.scaler),
                streams=self.open_streams(phase),
                bar=self._open_bar(phase, total, done),
            )
            self._set_training_mode(frozen)
            try:
                self._take_steps(run, done)
            finally:
                run.close()

    def _take_steps(self, run: PhaseRun, done: int) -> None:
        """Those that are left. What comes before the first is lost with nothing: a signal ends it
        at once. From there on a signal waits for the end of a step."""
        if done < run.total:
            self._refresh(run, Progress(done, run.total))
        with self.stop:
            for step in range(done, run.total):
                progress = Progress(step, run.total)
                if step > done:
                    self._refresh(run, progress)
                self._take_step(run, progress)
                self._follow_cadence(run, step + 1)
        if stop_code := self._stop_code():  # it came after the last step was saved
            raise self._interrupted(stop_code)

    def open_streams(self, phase: Phase) -> dict[str, Stream]:
        """The training streams of a phase, by name; batches are asked for by step."""
        return {name: self._open_stream(phase, name) for name in phase.streams}

    def _open_stream(self, phase: Phase, name: str) -> Stream:
        """Of images, or of the activations that are kept of them."""
        examples = self.data.stream_set(name)
        preprocess: Callable[[Tensor], Tensor] = self.data.preprocess
        if self.data.activations is not None and is_plain(self.data, phase, name):
            kept = self.data.activations.of(examples)
            if kept is not None:
                examples, preprocess = kept, as_given
        stream: Stream = phase.sampling.get(name, Stream)(
            name,
            examples,
            batch_size=int(self.trainer_cfg["batch_size"]),
            seed=int(self.cfg["seed"]),
            preprocess=preprocess,
            augment=self.data.view(name, "weak"),
            views={view: self.data.view(name, view) for view in phase.views.get(name, ())},
            backdrops=self.data.backdrops(name),
            device=self.device,
            rank=self.process.rank,
            world=self.process.world,
            workers=int(self.trainer_cfg["workers"]),
        )
        return stream

    def _open_bar(self, phase: Phase, total: int, done: int) -> Any:
        return tqdm(
            total=total,
            initial=done,
            desc=phase.name,
            unit="step",
            leave=None,  # below the bar of a sweep it goes away
            disable=not (self.process.first and sys.stderr.isatty()),
            dynamic_ncols=True,
        )

    def _set_training_mode(self, frozen: list[str]) -> None:
        self.net.train()
        self.net.set_frozen_eval(frozen)  # frozen means eval() too: batch statistics would drift
        set_held_eval(self.net)

    # ---- one step -------------------------------------------------------------------------

    def _refresh(self, run: PhaseRun, progress: Progress) -> None:
        """What the method does before every so many steps."""
        every = run.phase.refresh_every
        if every and progress.step % every == 0:
            self.method.refresh(run.phase, self.net, self.data, progress)

    def _take_step(self, run: PhaseRun, progress: Progress) -> None:
        """Learning rate, batches, updates."""
        phase, step = run.phase, progress.step
        set_learning_rate(run.optimizer, learning_rate_factor(run.schedule, step, run.total))
        batch = {name: stream.batch(self.global_step) for name, stream in run.streams.items()}
        info = StepInfo(self.global_step, phase, progress, batch, run.optimizer)
        self.hooks.before_step(info)
        scalars, updates = run.step(batch, progress)
        self.hooks.after_step(info)
        self.metrics_log.add(step, scalars)
        self.counters.updates += updates
        self.counters.images_seen += self.process.world * sum(len(b.index) for b in batch.values())
        self.global_step += 1
        run.bar.update()

    def _follow_cadence(self, run: PhaseRun, done: int) -> None:
        """Log, evaluate and save where it is due; save and raise Interrupted where asked to stop.

        done: steps of the phase that are taken.
        """
        stop_code = self._stop_code()
        evaluates, saves = run.cadence.evaluates(done), run.cadence.saves(done) or bool(stop_code)
        logs = run.cadence.logs(done)
        if not (logs or evaluates or saves):
            return
        self.metrics_log.check_finite()
        if logs:
            self._log_row(run)
        if evaluates:
            with self._clock_stopped():
                self._evaluate(run.phase, done, quiet=run.shows_bar)
                self._set_training_mode(run.frozen)
        if saves:
            with self._clock_stopped():
                self._save(run.index, run.phase, done, run.optimizer)
            stop_code = self._stop_code()
        if stop_code and saves:
            raise self._interrupted(stop_code)

    def _interrupted(self, stop_code: int) -> Interrupted:
        how = f"go on with: tlrun resume {self.run_dir.path}"
        return Interrupted(f"stopped at step {self.global_step}; {how}", stop_code)

    def _stop_code(self) -> int:
        """The exit code of the signal that any process was sent; 0 without one."""
        return self.process.max(self.stop.exit_code or 0, self.device)

    @contextmanager
    def _clock_stopped(self) -> Iterator[None]:
        """For what is no training."""
        self.counters.train_seconds += time.perf_counter() - self._clock
        yield
        self._clock = time.perf_counter()

    # ---- rows -----------------------------------------------------------------------------

    def _log_row(self, run: PhaseRun) -> None:
        seconds = self.counters.train_seconds + time.perf_counter() - self._clock
        losses = self.metrics_log.train_row(
            {"step": self.global_step, "phase": run.phase.name},
            {"lr": run.optimizer.defaults["current_lr"], "time": round(seconds, 3)},
        )
        run.bar.set_postfix(losses, refresh=False)

    def _evaluate(self, phase: Phase, done: int | None, *, quiet: bool = False) -> None:
        """Write an eval row; keep its weights if a rule may choose it.

        done: steps of the phase taken so far, `phase_step` of the row; None if it has none to take.
        """
        if not self.evaluates:
            return
        began = time.perf_counter()
        if self.process.first:
            self.net.eval()
            with torch.no_grad(), autocast(self.setup.precision, self.device):
                figures = self.setup.evaluator.row(self.net)
            self.counters.eval_seconds += time.perf_counter() - began
            seconds = round(self.counters.train_seconds + self.counters.eval_seconds, 3)
            row = {"step": self.global_step, "phase": phase.name, "split": "eval"}
            row |= {} if done is None else {"phase_step": done}
            row |= {**figures, "time": seconds}
            self.metrics_log.eval_row(row, quiet=quiet)
            self.selection.save_newest(lambda: self._candidate_state(phase))
            self.hooks.after_evaluation(row)
        self.process.wait()

    # ---- checkpoints ----------------------------------------------------------------------

    def _candidate_state(self, phase: Phase) -> dict[str, Any]:
        """What is needed to predict with the present weights."""
        return {
            "parts": _cpu({name: part.state_dict() for name, part in self.net.parts.items()}),
            "method": _cpu(self.method.state_dict()),
            "step": self.global_step,
            "phase": phase.name,
            "config_hash": self.config_hash,
        }

    def _save(
        self, index: int, phase: Phase, done: int, optimizer: torch.optim.Optimizer | None
    ) -> None:
        """Write last.pt: everything to go on as if nothing had happened."""
        self.hooks.before_save(phase, done)
        of_process = {"random": checkpoint.rng_state(), "window": self.metrics_log.state()}
        by_process = self.process.gather(of_process)
        self.counters.wall_seconds = self.counters.earlier_seconds + time.time() - self.setup.began
        if self.process.first:
            state = self._state(index, phase, done, optimizer, by_process)
            about = {"step": self.global_step, "phase": phase.name, "phase_step": done}
            checkpoint.save_last(self.run_dir.checkpoints, state, about)
            self.selection.drop_superfluous()
        self.process.wait()
        self.hooks.after_save(phase, done)

    def _state(
        self,
        index: int,
        phase: Phase,
        done: int,
        optimizer: torch.optim.Optimizer | None,
        by_process: list[Any],
    ) -> dict[str, Any]:
        """What `restore` needs, and `tlrun resume` before it."""
        setup = self.setup
        return {
            "parts": {name: part.state_dict() for name, part in self.net.parts.items()},
            "method": self.method.state_dict(),
            "terms": {name: term.state_dict() for name, term in setup.terms.items()},
            "balance": setup.balance.state_dict() if setup.balance else {},
            "carried": list(self.net.carried),
            "held": list(self.net.held),
            "optimizer": optimizer.state_dict() if optimizer else None,
            "scaler": self.scaler.state_dict(),
            "phase": phase.name,
            "phase_index": index,
            "phase_step": done,
            "step": self.global_step,
            "by_process": by_process,
            "counters": vars(self.counters),
            "metrics_size": self.run_dir.metrics_size(),
            "world": self.process.world,
            "config_hash": self.config_hash,
            "config": self.cfg,
        }

    def restore(self, saved: Mapping[str, Any], optimizer: torch.optim.Optimizer | None) -> int:
        """Put everything back as it was; returns the steps of the phase that are done."""
        if int(saved["world"]) != self.process.world:
            raise ConfigError(
                f"this run was trained with trainer.nodes x trainer.devices={saved['world']}; "
                "resume it with the same number"
            )
        if lacking := set(self.net.parts) - set(saved["parts"]):
            raise ConfigError(
                f"the checkpoint of this run lacks the parts {', '.join(sorted(lacking))}, which "
                "its method has by now (the run is of an earlier version): start a new run"
            )
        for name, state in saved["parts"].items():
            self.net[name].load_state_dict(state)
        self.method.load_state_dict(saved["method"])
        for name, term in self.setup.terms.items():
            term.load_state_dict(saved["terms"][name])
        if self.setup.balance:
            self.setup.balance.load_state_dict(saved["balance"])
        if optimizer is not None:
            optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.global_step = int(saved["step"])
        checkpoint.set_rng_state(saved["by_process"][self.process.rank]["random"])
        log.info("resumed at step %d (phase %s)", self.global_step, saved["phase"])
        return int(saved["phase_step"])


def _cpu(state: Any) -> Any:
    """A copy of a nested state on the CPU."""
    if isinstance(state, Tensor):
        return state.detach().cpu().clone()
    if isinstance(state, Mapping):
        return {key: _cpu(value) for key, value in state.items()}
    return state
