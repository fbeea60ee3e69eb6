"""First-order MAML: the derivatives of the inner steps are left out.

    θ' = θ − α ∇_θ L_support(θ)
    θ ← θ − β Σ_episodes ∇_θ' L_query(θ')      the gradient at θ', applied at θ

Finn, Abbeel, Levine, ICML 2017, section 5.2: nearly the figures of MAML at a fraction of its cost.
Head, batch norm and shapes as for `maml`.
"""

from __future__ import annotations

from tlrun.methods.few_shot.maml import MAML


class FOMAML(MAML):
    """Arguments as for `maml`."""

    first_order = True
