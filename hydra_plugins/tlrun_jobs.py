"""Hydra's sweeper for `tlrun -m`: its basic one, which composes fewer jobs before the first begins.

Hydra imports this file at the start of every command, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class Jobs(BasicSweeper):
    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose one job of each combination of groups (`method=`, `data=`), not every job.

        Whether a job composes depends on the files that it names; a tenth of a second each.
        """
        loader = self.hydra_context.config_loader
        keys = {key for job in batch for key, _, _ in [override.partition("=") for override in job]}
        groups = {key for key in keys if loader.get_group_options(key.lstrip("+~").split("@")[0])}
        chosen = {
            tuple(word for word in job if word.partition("=")[0] in groups): job
            for job in reversed(batch)
        }
        super().validate_batch_is_legal(list(chosen.values())[::-1])
