"""Gradual unfreezing: the head alone first, then one stage of the backbone more in each phase.

    phase k = 0, 1, ... K-1:   min over h, f_{L-k+1} ... f_L   E_T CE(h(f_L(...f_1(x))), y)
    phase "target":            min over h, f                   E_T CE(h(f(x)), y)

The last stage holds the least general knowledge, and is the first to thaw. Howard & Ruder,
"Universal Language Model Fine-tuning for Text Classification", ACL 2018, section 3.3 (text; their
"discriminative fine-tuning" is `optimizer.layer_decay`, 1/2.6 there). A frozen stage is in eval
mode: its batch statistics stay. Each phase has an optimizer and a schedule of its own.
x: (B, C, H, W); y: (B,) int64.
"""

from __future__ import annotations

from tlrun.config.ranges import BelowOne, Repeats, Size
from tlrun.data.problems.pair import Data
from tlrun.methods.base import Phase
from tlrun.methods.fine_tuning.finetune import Finetune


class GradualUnfreeze(Finetune):
    """thaws: K, the phases before all is trained; beyond the number of stages they change nothing.

    thaw_steps: length of each (None = `trainer.steps`). label_smoothing: as for `finetune`.
    """

    def __init__(
        self, thaws: Repeats = 2, thaw_steps: Size | None = None, label_smoothing: BelowOne = 0.0
    ) -> None:
        super().__init__(label_smoothing)
        self.thaws, self.thaw_steps = thaws, thaw_steps

    def phases(self, data: Data) -> list[Phase]:
        thawing = [
            Phase(
                f"thaw{k}",
                ("target",),
                frozen=(f"backbone[:-{k}]" if k else "backbone",),
                steps=self.thaw_steps,
                terms=k == 0 or "continue",
                transfer=k == 0,
            )
            for k in range(self.thaws)
        ]
        return [*self.source_phases(), *thawing, Phase("target", ("target",), terms="continue")]
