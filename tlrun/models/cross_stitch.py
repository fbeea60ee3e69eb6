"""Cross-stitch units: a net for each task, and behind each stage a mixture of what they hold.

    x̃_t = Σ_s α_ts x_s        α_ts of every stage are learned; α_tt starts at `own`

x_s is the output of a stage in the column of task s, x̃_t what the next stage of task t's column is
given. The others start at (1 − own)/(T − 1) each: 0.9 and 0.1 for two tasks. Misra, Shrivastava,
Gupta and Hebert, "Cross-stitch networks for multi-task learning", CVPR 2016, eq. 1, with an α for
all channels of a stage. No weight decay on α: it would pull the nets towards 0, not towards each
other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tlrun.models.segments import Segments


class CrossStitch(nn.Module):
    """alpha: (stages, T, T), row t of each stage is what task t takes of every column."""

    no_weight_decay = True

    def __init__(self, segments: Segments, tasks: int, own: float = 0.9) -> None:
        super().__init__()
        self.segments = segments
        others = (1 - own) / (tasks - 1)
        start = torch.full((tasks, tasks), others).fill_diagonal_(own)
        self.alpha = nn.Parameter(start.repeat(len(segments), 1, 1))

    def forward(self, columns: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
        """columns: the backbone of each task; x: (B, ...) -> its features (B, D) for each."""
        outputs = [x] * len(columns)
        for i in range(len(self.segments)):
            outputs = [
                self.segments.run(column, i, h) for column, h in zip(columns, outputs, strict=True)
            ]
            stacked = torch.stack(outputs)
            weights = self.alpha[i].to(stacked.dtype)
            outputs = list(torch.einsum("ts,s...->t...", weights, stacked))
        return [self.segments.tail(column, h) for column, h in zip(columns, outputs, strict=True)]
