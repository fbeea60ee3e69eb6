"""The contract of a balance: how the losses of several tasks become one update.

A method marks the losses that are tasks (`Update.tasks`); `balance=...` combines those alone, terms
are added as they are. A balance never sees data, optimizers or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from tlrun.models.net import Net

PART = "balance"  # of the net: what a balance learns


class Balance:
    """The sum of the task losses. Override `combine` for another one.

    several_processes: whether it may be used with trainer.devices > 1, where each process combines
    the losses of its own part of the batch. needs_post_step_losses: whether `update_weights` is
    called after each step, with the losses of the same batch.
    """

    several_processes = True
    needs_post_step_losses = False

    def module(self, tasks: Mapping[str, str]) -> nn.Module | None:
        """What it learns, a part of the net without weight decay. tasks: name -> class | box."""
        return None

    def combine(
        self, losses: dict[str, Tensor], net: Net, parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar to minimise, and the weights of the tasks for the log.

        losses: task -> scalar with a graph, in fp32. parameters: those that the update may change.
        """
        raise NotImplementedError

    def update_weights(self, losses: dict[str, Tensor]) -> None:
        """The losses (without a graph) of the same batch after the step."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
