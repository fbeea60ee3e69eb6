"""Where the weights come from, and what of them is carried over: `init` and `transfer.*`.

source      a source phase of the method's own comes first
pretrained  the backbone's published weights (`backbone.weights`, else its default ones)
scratch     random weights
RUN_DIR     the selected checkpoint of another run
auto        the method's choice; without one, what `backbone.weights` says

`transfer.*` acts at the start of the first phase that the method marks (`Phase.transfer`), else of
the first phase; from then on `transfer.freeze` holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tlrun.engine import checkpoint
from tlrun.evaluate.predict import checkpoint_path
from tlrun.methods.method import Phase
from tlrun.models.net import Net
from tlrun.models.transfer import Fate, load_parts, transfer
from tlrun.run_dir import RunDir

INITS = ("auto", "source", "pretrained", "scratch")


@dataclass
class Start:
    """init: as above, resolved. phase: number of the phase at whose start `transfer.*` acts.

    pretrained: whether the backbone came with weights. asked: whether the table is worth printing.
    """

    init: str
    phase: int
    asked: bool
    carry: tuple[str, ...] | None
    reinit: tuple[str, ...]
    freeze: tuple[str, ...]
    pretrained: bool = False

    @classmethod
    def of(cls, init: str, cfg: Mapping[str, Any], phases: Sequence[Phase]) -> Start:
        """cfg: the group `transfer`."""
        marked = [index for index, phase in enumerate(phases) if phase.transfer]
        carry = None if cfg["carry"] is None else tuple(cfg["carry"])
        reinit, freeze = tuple(cfg["reinit"]), tuple(cfg["freeze"])
        asked = bool(marked or carry is not None or reinit or freeze or init not in INITS)
        return cls(init, marked[0] if marked else 0, asked, carry, reinit, freeze)

    def freeze_in(self, index: int, phase: Phase) -> Phase:
        """The phase with `transfer.freeze` added, from the transfer on."""
        return replace(phase, frozen=phase.frozen + self.freeze) if index >= self.phase else phase

    def weights(self, asked: Any) -> Any:
        """The value of `backbone.weights`: `init` wins over it."""
        if self.init == "pretrained":
            return asked or "DEFAULT"
        return asked if self.init in ("auto", "source") else None

    def apply(self, net: Net, index: int, before: set[str]) -> list[Fate] | None:
        """Load and transfer, at the start of phase `index`; the table if there is one to show.

        before: the parts that existed before this phase built its own.
        """
        if index != self.phase or not self.asked:
            return None
        if self.init not in INITS:
            run = RunDir.open(self.init)
            known = load_parts(net, checkpoint.load(checkpoint_path(run, "selected"))["parts"])
        else:
            held = before if index > 0 else ({"backbone"} if self.pretrained else set())
            known = {stage: "" for stage in net.stages() if stage.partition(".")[0] in held}
        return transfer(net, known=known, carry=self.carry, reinit=self.reinit, freeze=self.freeze)
