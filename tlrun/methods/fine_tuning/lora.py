"""LoRA: fine-tuning by low-rank adapters beside the backbone's layers, which are held still.

    h(x) = W₀ x + (α / r) · B A x,      A: (r, d_in) random, B: (d_out, r) zero at the start

for every linear and (ungrouped) convolution layer of the backbone; the label head is trained as
always. Batch norm is held in eval mode with the rest: its statistics would drift under the
adapters. Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022 (their figures
are of language models); the layers are peft's (`pip install 'tlrun[lora]'`). Start and phases are
those of `finetune`. x: (B, C, H, W); y: (B,) int64.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tlrun.config.ranges import BelowOne, NotNegative, Share, Width
from tlrun.data.problems.pair import Data
from tlrun.errors import ConfigError
from tlrun.methods.base import Batches, Phase, Progress, Update
from tlrun.methods.fine_tuning.finetune import Finetune
from tlrun.models.batch_norm import BatchNorm
from tlrun.models.net import Net


class LoRA(Finetune):
    """rank: r. alpha: α, the scale times r. dropout: on the adapters' input.

    label_smoothing: as for `finetune`.
    """

    needs_images = False
    takes_soft_labels = True

    def __init__(
        self,
        rank: Width = 4,
        alpha: NotNegative = 8.0,
        dropout: Share = 0.0,
        label_smoothing: BelowOne = 0.0,
    ) -> None:
        super().__init__(label_smoothing)
        self.rank, self.alpha, self.dropout = rank, alpha, dropout

    def build(self, phase: Phase, net: Net, data: Data) -> None:
        super().build(phase, net, data)
        if phase.transfer and not is_adapted(net.backbone):
            adapt(net.backbone, self.rank, self.alpha, self.dropout)

    def step(self, net: Net, batch: Batches, phase: Phase, progress: Progress) -> Iterator[Update]:
        for module in net.backbone.modules() if phase.transfer else ():
            if isinstance(module, _BatchNorm | BatchNorm):
                module.eval()
        yield from super().step(net, batch, phase, progress)


def is_adapted(backbone: nn.Module) -> bool:
    return any(hasattr(module, "base_layer") for module in backbone.modules())


def adapt(backbone: nn.Module, rank: int, alpha: float, dropout: float) -> None:
    """Put an adapter beside each layer, in place; only the adapters stay trainable."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("method=lora needs peft: pip install 'tlrun[lora]'") from error
    layers = [
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    ]
    if not layers:
        raise ConfigError("method=lora: the backbone has no linear or convolution layer to adapt")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # any number; peft says int
        lora_dropout=dropout,
        target_modules="|".join(re.escape(name) for name in layers),  # a full match
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a hint about models of transformers
        inject_adapter_in_model(config, backbone)
