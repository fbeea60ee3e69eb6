"""Where the weights come from, and what of them is carried over: `init` and `transfer.*`.

source      a source phase of the method's own comes first
pretrained  the backbone's published weights (`backbone.weights`, else its default ones)
scratch     random weights
FILE        weights of the backbone, as backbone.weights=FILE with init=pretrained
RUN_DIR     the selected checkpoint of another run
auto        the method's choice; without one, what `backbone.weights` says

`transfer.*` acts at the start of the first phase that the method marks (`Phase.transfer`), else of
the first phase; from then on `transfer.freeze` and `transfer.freeze_carried` hold.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omegaconf import DictConfig

from tlrun.config import saved_code
from tlrun.config.build import build
from tlrun.config.schema import INITS
from tlrun.config.value_types import show
from tlrun.config.weight_files import is_weight_file
from tlrun.engine import checkpoint
from tlrun.errors import ConfigError
from tlrun.files.yaml_file import read_yaml
from tlrun.inference.predict import checkpoint_path
from tlrun.messages import plural
from tlrun.methods.base import Method, Phase
from tlrun.models.net import CARRIED, PROJECTOR, Net
from tlrun.models.transfer import StageTransfer, chosen, lacking_in_file, load_parts, transfer
from tlrun.models.weight_file import check_weight_file
from tlrun.run_folder.run_dir import RunDir

log = logging.getLogger(__name__)


@dataclass
class InitialWeights:
    """init: as above, resolved. backbone: its group. phase: number of the phase at whose start
    `transfer.*` acts.

    pretrained: whether the backbone came with weights. asked: whether the table is worth printing.
    cut: number of stages that are carried over, in forward order (None = as `carry` says).
    file: that of `backbone.weights`, if it was one.
    """

    init: str
    backbone: Mapping[str, Any]
    phase: int
    asked: bool
    carry: tuple[str, ...] | None
    reinit: tuple[str, ...]
    freeze: tuple[str, ...]
    cut: int | None = None
    pretrained: bool = False
    file: str | None = None

    @classmethod
    def of(
        cls,
        init: str,
        cfg: Mapping[str, Any],
        phases: Sequence[Phase],
        backbone: Mapping[str, Any] = MappingProxyType({}),
    ) -> InitialWeights:
        """cfg: the group `transfer`. Raises ConfigError if two of its keys contradict."""
        marked = [index for index, phase in enumerate(phases) if phase.transfer]
        carry = None if cfg["carry"] is None else tuple(cfg["carry"])
        reinit, freeze, cut = tuple(cfg["reinit"]), tuple(cfg["freeze"]), cfg["cut"]
        if cut is not None:
            if carry is not None:
                raise ConfigError(
                    "transfer.cut and transfer.carry are two ways to say the same: give only one"
                )
            carry = (f"[:{cut}]",)
        if cfg["freeze_carried"]:
            freeze = (*freeze, CARRIED)
        asked = bool(marked or carry is not None or reinit or freeze or init not in INITS)
        number = marked[0] if marked else 0
        return cls(init, backbone, number, asked, carry, reinit, freeze, cut)

    def origin(self) -> dict[str, Any] | None:
        """The run or file whose weights it starts from, and their sha256; else None."""
        if self.file is not None:
            digest = hashlib.sha256(Path(self.file).read_bytes()).hexdigest()
            return {"file": self.file, "sha256": digest}
        if self.init in INITS:
            return None
        path = checkpoint_path(RunDir.open(self.init), "selected")
        about = path.with_suffix(".json")
        sha256 = RunDir.read_json(about).get("sha256") if about.is_file() else None
        return {"run": self.init, "checkpoint": path.stem, "sha256": sha256}

    def check(self, net: Net) -> None:
        """net: as phase `self.phase` finds it. Raises ConfigError for a pattern without a match."""
        chosen(net, self.carry, self.reinit)
        net.select(self.freeze)
        count = len(net.path())
        if self.cut is not None and self.cut > count:
            raise ConfigError(
                f"transfer.cut={self.cut}: the net has {plural(count, 'stage')}, "
                f"{', '.join(net.path())}"
            )
        if self.cut == count and CARRIED in self.freeze:
            raise ConfigError(
                f"transfer.cut={count} with transfer.freeze_carried=true holds all {count} stages "
                f"still: nothing is left to train; cut at most after {count - 1}"
            )

    def freeze_in(self, index: int, phase: Phase) -> Phase:
        """The phase with what `transfer.*` freezes added, from the transfer on."""
        return replace(phase, frozen=phase.frozen + self.freeze) if index >= self.phase else phase

    def weights(self, asked: Any) -> Any:
        """The value of `backbone.weights`: `init` wins over it."""
        return pretrained_weights(self.init, asked)

    def apply(
        self,
        net: Net,
        index: int,
        before: set[str],
        classes: Sequence[str],
        fresh: Callable[[], Net],
    ) -> list[StageTransfer] | None:
        """Load and transfer, at the start of phase `index`; the table if there is one to show.

        before: the parts that existed before this phase built its own. classes: of the main head.
        fresh: makes a new net as this phase finds it.
        """
        if index != self.phase or not self.asked:
            return None
        return transfer(
            net,
            known=self._known(net, before, classes),
            fresh=fresh,
            carry=self.carry,
            reinit=self.reinit,
            freeze=self.freeze,
        )

    def foresee(self, net: Net, before: set[str], classes: Sequence[str]) -> None:
        """Set `net.carried` as `apply` will in phase `self.phase`; arguments as there."""
        if self.asked:
            kept, renewed = chosen(net, self.carry, self.reinit)
            known = self._known(net, before, classes)
            carried = (stage for stage, lacking in known.items() if not lacking)
            net.carried = tuple(s for s in carried if s in kept and s not in renewed)

    def _known(self, net: Net, before: set[str], classes: Sequence[str]) -> dict[str, str]:
        """`known` of `transfer`; the weights of another run are put into the net. Raises
        ConfigError where it has none that fit."""
        if self.init in INITS:
            return self._at_hand(net, before)
        run = RunDir.open(self.init)
        state = checkpoint.load(checkpoint_path(run, "selected"))
        unfit = self._other_classes(net, run, classes)
        known = load_parts(net, prediction_parts_of(run, state), unfit)
        kept, renewed = chosen(net, self.carry, self.reinit)
        wanted = [s for s in net.path("backbone") if s in kept - renewed and net.parameters_in(s)]
        if wanted and all(known[stage] for stage in wanted):
            why = self._why_unfit(run, f"{wanted[0]}: {known[wanted[0]]}")
            raise ConfigError(f"init={run.path}: the backbone of that run does not fit, {why}")
        return known

    def _why_unfit(self, run: RunDir, first: str) -> str:
        """In what the backbones differ, and what to give. first: what is wrong with a stage."""
        config = read_yaml(run.config)
        theirs = config.get("backbone") if isinstance(config, dict) else None
        if not isinstance(theirs, dict) or "name" not in theirs:
            return f"{first}: take a run with a backbone and images as here"
        name = theirs["name"]
        if name != self.backbone.get("name"):
            option = (config.get("choices") or {}).get("backbone", name)
            return f"since it is {name}: give backbone={option}"
        others = [
            f"backbone.{key}={show(value)}"
            for key, value in theirs.items()
            if key in self.backbone.keys() - {"weights", "head"} and value != self.backbone[key]
        ]
        if not others:
            return f"{first}: take a run with a backbone and images as here"
        return f"since it is another {name}: give {' '.join(others)}"

    def _at_hand(self, net: Net, before: set[str]) -> dict[str, str]:
        """The stages with weights of this run's own or of a file -> "", or why one has none."""
        held = before if self.phase > 0 or self.pretrained else set()
        stages = [stage for stage in net.stages() if stage.partition(".")[0] in held]
        return {stage: "" if self.phase > 0 else lacking_in_file(net, stage) for stage in stages}

    @staticmethod
    def _other_classes(net: Net, run: RunDir, classes: Sequence[str]) -> dict[str, str]:
        """The output layer does not fit where its classes are others, be they as many."""
        theirs = run.read_label_space()["classes"] if run.label_space.is_file() else classes
        if list(theirs) == list(classes) or net.main_head not in net.parts:
            return {}
        return {net.path(net.main_head)[-1]: "of other classes there"}


def settle_weight_file(cfg: DictConfig) -> None:
    """`init=FILE` becomes `init=pretrained backbone.weights=FILE`. Raises ConfigError or DataError
    for two files, and one that is not there."""
    weights = cfg.backbone.get("weights")
    if is_weight_file(cfg.init):
        if weights not in (None, cfg.init):
            raise ConfigError(
                f"init={cfg.init} and backbone.weights={weights} are two sets of weights: give one"
            )
        cfg.backbone.weights = weights = cfg.init
        cfg.init = "pretrained"
    if is_weight_file(weights) and cfg.init in ("auto", "source", "pretrained"):
        check_weight_file(Path(weights))


def pretrained_weights(init: str, asked: Any) -> Any:
    """What the backbone starts from: `backbone.weights` as asked, or as `init` has it."""
    if init == "pretrained":
        return asked or "DEFAULT"
    return asked if init in ("auto", "source") else None


def prediction_parts_of(run: RunDir, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parts of a run's checkpoint by which it predicts, not those that only taught them."""
    parts = {name: part for name, part in state["parts"].items() if name != PROJECTOR}
    try:
        config = read_yaml(run.config)
        spec = config.get("method") if isinstance(config, dict) else None
        if not isinstance(spec, dict):  # of a folder that holds no more than weights
            return parts
        saved_code.check({"method": spec}, str(run.config))
        method: Method = build(spec, "method")
    except ConfigError as error:  # a method of one's own that is not here
        log.warning("init=%s: taking its parts as they are, since %s", run.path, error)
        return parts
    method.load_state_dict(state["method"])
    return method.prediction_parts(parts)
