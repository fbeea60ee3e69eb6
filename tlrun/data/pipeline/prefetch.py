"""Images that stay in their files are decoded ahead of the step that wants them, in threads.

Threads, not processes: Pillow decodes and resizes without holding the interpreter, so they share
what is read, start in no time and need no copy from process to process (docs/decisions.md). What a
step is given does not depend on them: they only run ahead on `positions`, a pure function of the
step.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from tlrun.data.examples.image_set import ImageSet
from tlrun.machine import cores

AHEAD = 2  # batches
MOST = 16  # threads: what is left of a decoder's work under the interpreter's lock fills no more
CHUNK = 8  # images of a task


def auto_workers(processes: int = 1) -> int:
    """Threads that decode in each of so many processes on this machine."""
    return max(1, min(MOST, cores() // processes))


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """One for all streams, so that two of them do not take twice the cores."""
    return ThreadPoolExecutor(workers, "decode")


class Prefetch:
    """Raw examples of step after step. index_of: step -> (B,) int64, or None behind the last."""

    def __init__(
        self, examples: ImageSet, index_of: Callable[[int], Tensor | None], workers: int
    ) -> None:
        self.examples, self.index_of = examples, index_of
        self.pool = _pool(workers)
        self.pending: dict[int, list[Future[Tensor]]] = {}  # step -> its batch, in pieces

    def read(self, step: int) -> Tensor:
        """The raw batch of a step, and the next ones begun. A jump drops what was begun."""
        if self.pending and step not in self.pending:
            self.close()
        for ahead in range(step, step + 1 + AHEAD):
            if ahead not in self.pending and (index := self.index_of(ahead)) is not None:
                self.pending[ahead] = [
                    self.pool.submit(self.examples.read, part) for part in index.split(CHUNK)
                ]
        return torch.cat([part.result() for part in self.pending.pop(step)])

    def close(self) -> None:
        """Let go of what is begun."""
        for parts in self.pending.values():
            for part in parts:
                part.cancel()
        self.pending.clear()
