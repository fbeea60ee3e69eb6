"""ANIL: as MAML, but the inner steps change the head alone.

    h' = h − α ∇_h L_support(f, h)             "almost no inner loop"
    min over f, h: Σ_episodes L_query(f, h')

Raghu, Raghu, Bengio, Vinyals, "Rapid Learning or Feature Reuse? Towards Understanding the
Effectiveness of MAML", ICLR 2020: as good as MAML, several times faster. Head, batch norm and
shapes as for `maml`.
"""

from __future__ import annotations

from tlrun.methods.few_shot.maml import MAML


class ANIL(MAML):
    """Arguments as for `maml`."""

    inner_parts = ("classifier",)
