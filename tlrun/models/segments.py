"""A backbone cut behind its stages, so that something can be done to what lies between them.

    segments = Segments(net.backbone, net.input_shape)
    h = x
    for i in range(len(segments)):
        h = segments.run(backbone, i, h)     # through stage i and what precedes it since stage i-1
    features = segments.tail(backbone, h)    # (B, D): pooling and the like behind the last stage

Only a chain can be cut so: a trial must make the same features of the pieces as of the whole. A
convolutional or residual net is one, a transformer, which adds positions to what it is given, not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tlrun.errors import ConfigError
from tlrun.models.columns import stages_of
from tlrun.models.prefix import passed_over, reach


class Segments:
    """The modules of each piece. Copies of the backbone are cut in the same places.

    input_shape: (C, H, W) or (D,). shapes: of each stage's output for one image. Raises ConfigError
    for a backbone that is no chain of its stages; key: what asked for it, for the message.
    """

    def __init__(self, backbone: nn.Module, input_shape: tuple[int, ...], key: str) -> None:
        self.stages = stages_of(backbone)
        self.pieces: list[tuple[str, ...]] = []  # modules: the stage, and what precedes it
        self.shapes: list[tuple[int, ...]] = []
        device = next(backbone.parameters()).device
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, *input_shape, generator=generator).to(device)
        was_training = [module for module in backbone.modules() if module.training]
        backbone.eval()
        try:
            with torch.no_grad():
                same = self._try(backbone, x)
        except Exception as error:  # whatever a backbone makes of an input of another shape
            raise ConfigError(self._refusal(key)) from error
        finally:
            for module in was_training:
                module.training = True
        if not same:
            raise ConfigError(self._refusal(key))

    def _try(self, backbone: nn.Module, x: Tensor) -> bool:
        h = x
        for i, stage in enumerate(self.stages):
            called = reach(backbone, stage, x)[1]
            self.pieces.append(called[sum(map(len, self.pieces)) :])
            h = self.run(backbone, i, h)
            self.shapes.append(tuple(h.shape[1:]))
        return torch.equal(self.tail(backbone, h), backbone(x))

    def _refusal(self, key: str) -> str:
        return (
            f"{key} acts between the stages of the backbone, and this one is no plain chain of "
            f"{', '.join(self.stages[:3])} ...: take one such as conv4, resnet18 or "
            "efficientnet_lite0"
        )

    def __len__(self) -> int:
        return len(self.stages)

    def run(self, backbone: nn.Module, i: int, h: Tensor) -> Tensor:
        """h: the output of stage i - 1 (of i = 0: the images) -> that of stage i."""
        for name in self.pieces[i]:
            h = backbone.get_submodule(name)(h)
        return h

    def tail(self, backbone: nn.Module, h: Tensor) -> Tensor:
        """h: the output of the last stage -> features (B, D)."""
        done = [backbone.get_submodule(name) for piece in self.pieces for name in piece]
        with passed_over(done):  # not what torch.compile has made of it: that would run them
            features: Tensor = backbone.forward(h)
        return features
