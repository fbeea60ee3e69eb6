"""One training step: the updates that a method yields for a batch, each with its optimizer step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from tlrun.data.pipeline.streams import Batch
from tlrun.engine.precision import autocast
from tlrun.engine.setup import TrainingSetup
from tlrun.errors import ConfigError
from tlrun.methods.balances.base import Balance
from tlrun.methods.base import Phase, Progress, Term, Update


class TrainingStep:
    """Takes the steps of one phase; what is trainable stays fixed meanwhile.

    The generators of the micro-batches advance in lockstep: backward for each, then averaging over
    processes, unscaling, the gradients of terms, clipping, and the optimizer's step.
    """

    def __init__(
        self,
        setup: TrainingSetup,
        phase: Phase,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.method, self.net, self.balance = setup.method, setup.net, setup.balance
        self.terms = list(setup.terms.values()) if phase.terms else []
        self.process, self.device, self.precision = setup.process, setup.device, setup.precision
        self.accumulate = int(setup.cfg["trainer"]["accumulate"])
        self.grad_clip = setup.cfg["trainer"]["grad_clip"]
        self.phase, self.optimizer, self.scaler = phase, optimizer, scaler
        self._trainable: dict[tuple[str, ...], list[torch.nn.Parameter]] = {}

    def __call__(
        self, batch: Mapping[str, Batch], progress: Progress
    ) -> tuple[dict[str, Tensor], int]:
        """Returns the scalars to log, on the device, and the number of updates."""
        pieces = split_batch(batch, self.accumulate)
        generators = [self.method.step(self.net, piece, self.phase, progress) for piece in pieces]
        logged: dict[str, Tensor] = {}
        updates = 0
        while (update := self._backward(generators, logged)) is not None:
            self._apply(*update)
            updates += 1
            if self.balance and self.balance.needs_post_step_losses:
                self._update_balance(self.balance, batch, progress)
        return logged, updates

    def _backward(
        self, generators: list[Iterator[Update]], logged: dict[str, Tensor]
    ) -> tuple[list[torch.nn.Parameter], list[Term]] | None:
        """Take the next update from each generator and accumulate gradients.

        Returns the parameters it may change and the terms that join it, None at their end.
        """
        parameters: list[torch.nn.Parameter] = []
        terms: list[Term] = []
        self.optimizer.zero_grad(set_to_none=True)
        for generator in generators:
            with autocast(self.precision, self.device):
                update = next(generator, None)
                if update is None:
                    return None
                losses = dict(update.losses)
                terms = self.terms if update.main else []
                for term in terms:
                    losses.update(term.loss(update, self.net))
            parts = update.parts or self.phase.parts or tuple(self.net.parts)
            parameters = self._parameters(parts)
            share = 1.0 / len(generators)
            total = self._total(update, losses, parameters)
            self.scaler.scale(total * share).backward(inputs=parameters)
            for name, loss in losses.items():
                key = f"loss/{name}"
                logged[key] = logged.get(key, 0.0) + loss.detach().float() * share
            for name, metric in update.metrics.items():
                key = f"metric/{name}"
                number = torch.as_tensor(metric, dtype=torch.float32, device=self.device).detach()
                logged[key] = logged.get(key, 0.0) + number * share
        return parameters, terms

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

    def _parameters(self, parts: tuple[str, ...]) -> list[torch.nn.Parameter]:
        """Trainable parameters of the parts of an update."""
        if parts not in self._trainable:
            parameters = list(self.net.parameters_of(parts))
            if not parameters:
                raise ConfigError(
                    f"an update of {', '.join(parts)} has nothing to train: all of it is frozen "
                    "(transfer.freeze, phases.<name>.frozen)"
                )
            self._trainable[parts] = parameters
        return self._trainable[parts]

    def _apply(self, parameters: list[torch.nn.Parameter], terms: list[Term]) -> None:
        self.process.average_gradients(parameters)  # before unscaling: all see the same inf
        self.scaler.unscale_(self.optimizer)
        for term in terms:
            term.grad_(self.net)
        if self.grad_clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, float(self.grad_clip))
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _update_balance(
        self, balance: Balance, batch: Mapping[str, Batch], progress: Progress
    ) -> None:
        """The task losses of the same batch, now that the step is taken."""
        with torch.no_grad(), autocast(self.precision, self.device):
            update = next(self.method.step(self.net, batch, self.phase, progress))
        balance.update_weights({name: update.losses[name].float() for name in update.tasks})


def split_batch(batch: Mapping[str, Batch], count: int) -> list[Mapping[str, Batch]]:
    """Every stream's batch in `count` equal pieces."""
    if count == 1:
        return [batch]
    return [
        {name: _piece(whole, i, len(whole.index) // count) for name, whole in batch.items()}
        for i in range(count)
    ]


def _piece(whole: Batch, i: int, size: int) -> Batch:
    cut = slice(i * size, (i + 1) * size)
    return replace(
        whole,
        x=whole.x[cut],
        y=None if whole.y is None else whole.y[cut],
        index=whole.index[cut],
        columns={name: values[cut] for name, values in whole.columns.items()},
        views={name: images[cut] for name, images in whole.views.items()},
    )
