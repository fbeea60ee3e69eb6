"""The training loop: one for every method.

It reads top to bottom in `Loop.fit`: for each phase build the parts, the optimizer and the streams;
for each step draw the batches, run the method's generator, and after each yielded update do
backward, averaging over processes, clipping and the optimizer step. Evaluation, selection and
checkpoints follow their cadence. Nothing here knows any method by name.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from tlrun.data.pipeline.streams import Batch, Stream
from tlrun.data.problems.pair import Data
from tlrun.engine import checkpoint
from tlrun.engine.distributed import Process
from tlrun.engine.interrupt import StopRequest
from tlrun.engine.metrics_log import Record, Row
from tlrun.engine.optimizers import learning_rate_factor, make_optimizer, merged, set_learning_rate
from tlrun.engine.precision import autocast
from tlrun.errors import ConfigError, Interrupted
from tlrun.evaluate.selection import score
from tlrun.methods.balances.base import Balance
from tlrun.methods.base import Method, Phase, Progress, Term, Update
from tlrun.models.net import Net
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)

Evaluate = Callable[[], dict[str, float | None]]
Candidates = Callable[[list[Row], str], list[Row]]


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


class Loop:
    """Trains `net` with `method` through its phases, from the start or from `checkpoints/last.pt`.

    evaluate: () -> the row of figures of an evaluation. candidates: (rows, rule) -> those of them
    that a selection rule may still choose, its choice so far first. finish_build: called after a
    phase has built its parts (moves them to the device, converts batch norm). carry_over: called
    at the start of each phase with its number and the parts that were there before, never on resume
    (`init` and `transfer.*`). cfg: the resolved config. began: time.time() when this sitting began
    (None = now). further_rules: selection rules that keep a checkpoint beside those of `cfg`.
    Raises Interrupted after SIGINT/SIGTERM, RunError when a loss is not finite or the disk is full.
    """

    def __init__(
        self,
        cfg: Mapping[str, Any],
        *,
        run_dir: RunDir,
        data: Data,
        net: Net,
        method: Method,
        terms: Mapping[str, Term],
        balance: Balance | None,
        phases: list[Phase],
        evaluate: Evaluate,
        candidates: Candidates,
        finish_build: Callable[[Net], None],
        carry_over: Callable[[int, set[str]], None],
        process: Process,
        device: torch.device,
        precision: str,
        config_hash: str,
        further_rules: Sequence[str] = (),
        began: float | None = None,
    ) -> None:
        self.cfg, self.trainer = cfg, cfg["trainer"]
        self.run_dir, self.data, self.net = run_dir, data, net
        self.method, self.terms, self.phases = method, terms, phases
        self.balance = balance
        self.evaluate, self.finish_build = evaluate, finish_build
        self.candidates, self.carry_over = candidates, carry_over
        self.process, self.device, self.precision = process, device, precision
        self.config_hash = config_hash
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.counters = Counters()
        self.began = time.time() if began is None else began
        self.global_step = 0  # over all phases: the "step" of rows and checkpoints
        asked = [str(cfg["select"]["name"]), *map(str, cfg["selectors"])]
        rules = dict.fromkeys([*asked, *further_rules])
        rules.pop("last", None)  # last.pt is written anyway, with all that a resume needs
        self.record = Record(run_dir, process, device, list(rules))
        self._kept: set[int] = set()  # candidates of the newest last.pt, by number of evaluation

    # ---- the whole run --------------------------------------------------------------------

    def fit(self) -> None:
        """Run every phase that is not done yet."""
        saved = checkpoint.load_last(self.run_dir.checkpoints)
        begin = int(saved["phase_index"]) if saved else 0
        self.counters = Counters(**saved["counters"]) if saved else Counters()
        self.counters.earlier_seconds = self.counters.wall_seconds
        self.counters.sitting = self.began
        self.counters.start_seconds += time.time() - self.began
        self.record.open(self.cfg["logger"], saved)
        if self.process.first:
            self._take_back()
        with StopRequest() as self.stop:
            for index, phase in enumerate(self.phases):
                before = set(self.net.parts)
                self.method.build(phase, self.net, self.data)
                self.finish_build(self.net)
                if index >= begin:
                    self._run_phase(index, phase, before, saved if index == begin else None)
        if self.process.first:
            self._publish()
        self.process.wait()

    def total_steps(self, phase: Phase) -> int:
        """Length of a phase in steps: its own, else `trainer.steps`, else `trainer.epochs`."""
        if phase.steps is not None:
            return phase.steps
        if self.trainer.get("epochs") is None:
            return int(self.trainer["steps"])
        examples = len(self.data.stream_set(phase.epoch_stream or phase.streams[0]))
        return max(
            1, math.ceil(float(self.trainer["epochs"]) * examples / int(self.trainer["batch_size"]))
        )

    # ---- one phase ------------------------------------------------------------------------

    def _run_phase(
        self, index: int, phase: Phase, before: set[str], saved: dict[str, Any] | None
    ) -> None:
        total = self.total_steps(phase)
        if saved is None:
            self.carry_over(index, before)  # first: what is frozen may depend on it
        else:
            self.net.carried = tuple(saved.get("carried", ()))
        frozen = self.net.select(phase.frozen)
        self._set_trainable(frozen, False)
        self._parameter_lists: dict[tuple[str, ...], list[torch.nn.Parameter]] = {}
        if saved is None:
            self._start(phase)
        schedule = merged(self.cfg["schedule"], phase.schedule)
        optimizer = (
            make_optimizer(merged(self.cfg["optimizer"], phase.optimizer), self.net, phase.parts)
            if total > 0
            else None
        )
        done = self._restore(saved, optimizer) if saved else 0
        cadence = int(self.trainer["eval_every"] or max(1, math.ceil(total / 20)))
        save_every = int(self.trainer["checkpoint_every"] or cadence)
        log_every = int(self.trainer["log_every"] or max(1, math.ceil(total / 100)))
        if saved is None and total > 0:
            self._evaluate(phase, 0)  # where the curves of the phase begin
        streams = self.open_streams(phase)
        bar = tqdm(
            total=total,
            initial=done,
            desc=phase.name,
            unit="step",
            leave=None,  # below the bar of a sweep it goes away
            disable=not (self.process.first and sys.stderr.isatty()),
            dynamic_ncols=True,
        )
        self.net.train()
        self.net.hold_still(frozen)  # frozen means eval() too: batch statistics would drift
        clock = time.perf_counter()
        try:
            for step in range(done, total):
                progress = Progress(step, total)
                factor = learning_rate_factor(schedule, step, total)
                assert optimizer is not None
                set_learning_rate(optimizer, factor)
                if phase.refresh_every and step % phase.refresh_every == 0:
                    self.method.refresh(phase, self.net, self.data, progress)
                batch = {name: stream.batch(self.global_step) for name, stream in streams.items()}
                self._step(batch, progress, phase, optimizer)
                self.global_step += 1
                bar.update()
                last = step + 1 == total
                stopping = self.process.max(self.stop.exit_code or 0, self.device)
                log_now = (step + 1) % log_every == 0 or last
                evaluate_now = (step + 1) % cadence == 0 or last
                save_now = (step + 1) % save_every == 0 or last or bool(stopping)
                if not (log_now or evaluate_now or save_now):
                    continue
                self.record.check_finite()
                if log_now:
                    self._log_row(phase, optimizer, clock, bar)
                if evaluate_now:
                    self.counters.train_seconds += time.perf_counter() - clock
                    self._evaluate(phase, step + 1, bar)
                    self.net.train()
                    self.net.hold_still(frozen)
                    clock = time.perf_counter()
                if save_now:
                    self.counters.train_seconds += time.perf_counter() - clock
                    self._save(index, phase, step + 1, optimizer)
                    clock = time.perf_counter()
                    stopping = self.process.max(self.stop.exit_code or 0, self.device)
                if stopping and save_now:
                    raise Interrupted(
                        f"stopped at step {self.global_step}; "
                        f"go on with: tlrun resume {self.run_dir.path}",
                        stopping,
                    )
        finally:
            bar.close()
            for stream in streams.values():
                stream.close()
        if total == 0 and saved is None:
            self._evaluate(phase, None)
            self._save(index, phase, 0, None)
        self._set_trainable(frozen, True)  # the next phase decides anew

    def _start(self, phase: Phase) -> None:
        """What happens once at the start of a phase, and is read from the checkpoint on resume."""
        self.method.start(phase, self.net, self.data)
        self.process.broadcast(self.net.state_dict().values())
        for term in self.terms.values() if phase.terms is True else ():
            term.start(self.net, self.data)
        if self.process.world > 1:  # one start for all, then dropout of their own
            torch.manual_seed(torch.initial_seed() + 1000 * (self.process.rank + 1))

    def open_streams(self, phase: Phase) -> dict[str, Stream]:
        """The training streams of a phase, by name; batches are asked for by step."""
        return {
            name: phase.sampling.get(name, Stream)(
                name,
                self.data.stream_set(name),
                batch_size=int(self.trainer["batch_size"]),
                seed=int(self.cfg["seed"]),
                preprocess=self.data.preprocess,
                augment=self.data.view(name, "weak"),
                views={view: self.data.view(name, view) for view in phase.views.get(name, ())},
                backdrops=self.data.backdrops(name),
                device=self.device,
                rank=self.process.rank,
                world=self.process.world,
                workers=int(self.trainer["workers"]),
            )
            for name in phase.streams
        }

    def _set_trainable(self, stages: list[str], trainable: bool) -> None:
        for stage in stages:
            for parameter in self.net.parameters_in(stage):
                parameter.requires_grad_(trainable)

    # ---- one step -------------------------------------------------------------------------

    def _step(
        self,
        batch: dict[str, Batch],
        progress: Progress,
        phase: Phase,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Advance the generators of the micro-batches in lockstep; step after each update."""
        pieces = _micro_batches(batch, int(self.trainer["accumulate"]))
        generators = [self.method.step(self.net, piece, phase, progress) for piece in pieces]
        logged: dict[str, Tensor] = {}
        while True:
            done = self._backward(generators, optimizer, logged, phase)
            if done is None:
                break
            self._apply(*done, optimizer)
            self.counters.updates += 1
            if self.balance and self.balance.looks_again:
                self._look_again(self.balance, batch, phase, progress)
        size = sum(len(b.index) for b in batch.values()) * self.process.world
        self.counters.images_seen += size
        self.record.remember(progress.step, logged)

    def _backward(
        self,
        generators: list[Iterator[Update]],
        optimizer: torch.optim.Optimizer,
        logged: dict[str, Tensor],
        phase: Phase,
    ) -> tuple[tuple[str, ...], list[Term]] | None:
        """Take the next update from each generator and accumulate gradients.

        Returns the parts it may change and the terms that join it; None at the generators' end.
        """
        parts: tuple[str, ...] = ()
        terms: list[Term] = []
        optimizer.zero_grad(set_to_none=True)
        for generator in generators:
            with autocast(self.precision, self.device):
                update = next(generator, None)
                if update is None:
                    return None
                losses = dict(update.losses)
                terms = list(self.terms.values()) if update.main and phase.terms else []
                for term in terms:
                    losses.update(term.loss(update, self.net))
            parts = update.parts or phase.parts or tuple(self.net.parts)
            share = 1.0 / len(generators)
            total = self._total(update, losses, self._parameters(parts))
            self.scaler.scale(total * share).backward(inputs=self._parameters(parts))
            for name, value in losses.items():
                key = f"loss/{name}"
                logged[key] = logged.get(key, 0.0) + value.detach().float() * share
            for name, metric in update.metrics.items():
                key = f"metric/{name}"
                number = torch.as_tensor(metric, dtype=torch.float32, device=self.device).detach()
                logged[key] = logged.get(key, 0.0) + number * share
        return parts, terms

    def _total(
        self, update: Update, losses: Mapping[str, Tensor], parameters: list[torch.nn.Parameter]
    ) -> Tensor:
        """What is minimised: the sum of the losses, those of tasks combined by the balance."""
        summed = {name: loss.float() for name, loss in losses.items()}
        if self.balance and update.tasks:
            tasks = {name: summed.pop(name) for name in update.tasks}
            combined, weights = self.balance.combine(tasks, self.net, parameters)
            update.metrics |= {f"weight_{name}": weight for name, weight in weights.items()}
            summed["combined"] = combined
        return torch.stack(list(summed.values())).sum()

    def _look_again(
        self, balance: Balance, batch: dict[str, Batch], phase: Phase, progress: Progress
    ) -> None:
        """The task losses of the same batch, now that the step is taken."""
        with torch.no_grad(), autocast(self.precision, self.device):
            update = next(self.method.step(self.net, batch, phase, progress))
        balance.after({name: update.losses[name].float() for name in update.tasks})

    def _parameters(self, parts: tuple[str, ...]) -> list[torch.nn.Parameter]:
        """Trainable parameters of the parts of an update; what is trainable is fixed in a phase."""
        if parts not in self._parameter_lists:
            found = list(self.net.parameters_of(parts))
            if not found:
                raise ConfigError(
                    f"an update of {', '.join(parts)} has nothing to train: all of it is frozen "
                    "(transfer.freeze, phases.<name>.frozen)"
                )
            self._parameter_lists[parts] = found
        return self._parameter_lists[parts]

    def _apply(
        self, parts: tuple[str, ...], terms: list[Term], optimizer: torch.optim.Optimizer
    ) -> None:
        parameters = self._parameters(parts)
        self.process.average_gradients(parameters)  # before unscaling: all see the same inf
        self.scaler.unscale_(optimizer)
        for term in terms:
            term.grad_(self.net)
        if self.trainer["grad_clip"] is not None:
            torch.nn.utils.clip_grad_norm_(parameters, float(self.trainer["grad_clip"]))
        self.scaler.step(optimizer)
        self.scaler.update()

    # ---- rows -----------------------------------------------------------------------------

    def _log_row(
        self, phase: Phase, optimizer: torch.optim.Optimizer, clock: float, bar: Any
    ) -> None:
        seconds = self.counters.train_seconds + time.perf_counter() - clock
        losses = self.record.train_row(
            {"step": self.global_step, "phase": phase.name},
            {"lr": optimizer.defaults["current_lr"], "time": round(seconds, 3)},
        )
        bar.set_postfix(losses, refresh=False)

    def _evaluate(self, phase: Phase, done: int | None, bar: Any = None) -> None:
        """Write an eval row; keep its weights if a rule may choose it.

        done: steps of the phase taken so far, `phase_step` of the row; None if it has none to take.
        """
        began = time.perf_counter()
        if self.process.first:
            self.net.eval()
            with torch.no_grad(), autocast(self.precision, self.device):
                figures = self.evaluate()
            self.counters.eval_seconds += time.perf_counter() - began
            seconds = round(self.counters.train_seconds + self.counters.eval_seconds, 3)
            row = {"step": self.global_step, "phase": phase.name, "split": "eval"}
            row |= {} if done is None else {"phase_step": done}
            row |= {**figures, "time": seconds}
            self.record.eval_row(row, quiet=bool(bar and not bar.disable))
            if len(self.record.rows) - 1 in self._waiting():
                self._save_candidate(phase)
        self.process.wait()

    # ---- checkpoints ----------------------------------------------------------------------

    def _waiting(self) -> set[int]:
        """Numbers of the evaluations that some rule may still choose."""
        places = {id(row): place for place, row in enumerate(self.record.rows)}
        return {
            places[id(row)]
            for rule in self.record.rules
            for row in self.candidates(self.record.rows, rule)
        }

    def _save_candidate(self, phase: Phase) -> None:
        state = {
            "parts": _cpu({name: part.state_dict() for name, part in self.net.parts.items()}),
            "method": _cpu(self.method.state_dict()),
            "step": self.global_step,
            "phase": phase.name,
            "config_hash": self.config_hash,
        }
        about = {"step": self.global_step, "phase": phase.name}
        place = len(self.record.rows) - 1
        checkpoint.save_candidate(self.run_dir.checkpoints, place, state, about)

    def _publish(self) -> None:
        """At the end: the choice of each rule becomes its checkpoint, if it has one.

        What waits beside the choices stays: it could still win if the run became longer.
        """
        folder, rows, waiting = self.run_dir.checkpoints, self.record.rows, self._waiting()
        chosen: set[int] = set()
        for rule in self.record.rules:
            path = folder / f"{rule}.pt"
            row = next(iter(self.candidates(rows, rule)), None)
            if row is not None:
                place = next(k for k in waiting if rows[k] is row)
                about = {"step": row["step"], "phase": row["phase"], "metric": rule}
                about["value"] = score(row, rule)
                if checkpoint.same_as(checkpoint.candidate_path(folder, place), path, about):
                    chosen.add(place)
                    continue
                log.warning(
                    "select=%s chose step %s, whose weights are gone from %s",
                    *(rule, row["step"], folder),
                )
            for file in (path, path.with_suffix(".json")):  # of a run that has become longer
                file.unlink(missing_ok=True)
        checkpoint.keep_candidates(folder, waiting - chosen)

    def _take_back(self) -> None:
        """Before training goes on: what `_publish` has renamed is a candidate again."""
        folder, rows = self.run_dir.checkpoints, self.record.rows
        self._kept = self._waiting()
        checkpoint.keep_candidates(folder, self._kept)
        for place in self._kept:
            about = {"step": rows[place]["step"], "phase": rows[place]["phase"]}
            path = checkpoint.candidate_path(folder, place)
            for rule in self.record.rules if not path.is_file() else ():
                source = folder / f"{rule}.pt"
                if checkpoint.place_in_training(source) == (about["step"], about["phase"]):
                    checkpoint.same_as(source, path, about)

    def _save(
        self, index: int, phase: Phase, done: int, optimizer: torch.optim.Optimizer | None
    ) -> None:
        """Everything that `_restore` needs to go on as if nothing had happened."""
        own = {"random": checkpoint.rng_state(), "window": self.record.state()}
        by_process = self.process.gather(own)
        self.counters.wall_seconds = self.counters.earlier_seconds + time.time() - self.began
        if self.process.first:
            state = {
                "parts": {name: part.state_dict() for name, part in self.net.parts.items()},
                "method": self.method.state_dict(),
                "terms": {name: term.state_dict() for name, term in self.terms.items()},
                "balance": self.balance.state_dict() if self.balance else {},
                "carried": list(self.net.carried),
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
            about = {"step": self.global_step, "phase": phase.name, "phase_step": done}
            checkpoint.save_last(self.run_dir.checkpoints, state, about)
            # What the checkpoint before needs stays: this one may turn out to be damaged.
            waiting = self._waiting()
            checkpoint.keep_candidates(self.run_dir.checkpoints, waiting | self._kept)
            self._kept = waiting
        self.process.wait()

    def _restore(self, saved: dict[str, Any], optimizer: torch.optim.Optimizer | None) -> int:
        """Put everything back as it was; returns the steps of the phase that are done."""
        if int(saved["world"]) != self.process.world:
            raise ConfigError(
                f"this run was trained with trainer.devices={saved['world']}; "
                "resume it with the same number"
            )
        for name, state in saved["parts"].items():
            self.net[name].load_state_dict(state)
        self.method.load_state_dict(saved["method"])
        for name, term in self.terms.items():
            term.load_state_dict(saved["terms"][name])
        if self.balance:
            self.balance.load_state_dict(saved["balance"])
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


def _micro_batches(batch: dict[str, Batch], count: int) -> list[dict[str, Batch]]:
    """Split every stream's batch into `count` equal pieces."""
    if count == 1:
        return [batch]
    pieces = []
    for i in range(count):
        piece = {}
        for name, whole in batch.items():
            size = len(whole.index) // count
            cut = slice(i * size, (i + 1) * size)
            piece[name] = replace(
                whole,
                x=whole.x[cut],
                y=None if whole.y is None else whole.y[cut],
                index=whole.index[cut],
                columns={key: values[cut] for key, values in whole.columns.items()},
                views={key: values[cut] for key, values in whole.views.items()},
            )
        pieces.append(piece)
    return pieces
