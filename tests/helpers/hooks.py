"""Hooks for the trainers of tests: one that dies at a step, and hooks for a whole command."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tlrun.engine.hooks import Hooks, StepInfo
from tlrun.engine.trainer import Trainer
from tlrun.experiment.session import Session


class Crash(BaseException):
    """As sudden as kill -9."""


def call_before(global_step: int, action: Callable[[], None]) -> Hooks:
    """Call `action` before a step, counted from 0 over all phases."""
    return Hooks(before_step=lambda step: action() if step.global_step == global_step else None)


def crash_before(global_step: int, error: type[BaseException] = Crash) -> Hooks:
    """Raise `error` before a step, counted from 0 over all phases."""

    def crash() -> None:
        raise error

    return call_before(global_step, crash)


def crash_before_save(global_step: int, error: type[BaseException] = Crash) -> Hooks:
    """Raise `error` instead of saving after so many steps of all phases."""
    steps: list[StepInfo] = []

    def crash(*_: object) -> None:
        if len(steps) == global_step:
            raise error

    return Hooks(after_step=steps.append, before_save=crash)


def crash_after_save(phase_step: int, error: type[BaseException] = Crash) -> Hooks:
    """Raise `error` as soon as step `phase_step` of a phase is saved."""

    def crash(_phase: object, done: int) -> None:
        if done == phase_step:
            raise error

    return Hooks(after_save=crash)


def crash_at_call(number: int, error: BaseException) -> Hooks:
    """Raise `error` before the step that is the `number`-th of the process, whatever its run."""
    steps: list[StepInfo] = []

    def count(step: StepInfo) -> None:
        steps.append(step)
        if len(steps) == number:
            raise error

    return Hooks(before_step=count)


def in_every_trainer(patch: pytest.MonkeyPatch, hooks: Hooks) -> None:
    """Every session of this process gives these hooks to its trainer, as in a whole command."""
    patch.setattr(Session, "trainer", lambda session: Trainer(session, hooks))
