"""Target only: supervised training on the target's own labels, the upper bound of adaptation.

    min E_(x,y)~T [ CE(h(f(x)), y) ]

It sees target labels (`target_labels_seen` in summary.json counts them; `target_labels=k` limits
them to k per class). MNIST-M: 95.96 % published (Ganin et al., JMLR 2016, "train on target").
"""

from __future__ import annotations

from tlrun.methods.base import Requirements
from tlrun.methods.fine_tuning.source_only import SourceOnly


class TargetOnly(SourceOnly):
    """Cross-entropy on the labelled target; label_smoothing in [0, 1)."""

    requirements = Requirements(streams=("target",), target_labels="all")
