"""Virtual adversarial training of a net: the passes that VADA and `terms=[vat]` share."""

from __future__ import annotations

import torch
from torch import Tensor

from tlrun.losses.virtual_adversarial import vat_loss
from tlrun.models.net import Net
from tlrun.models.repeatable import repeatable


def net_vat(
    net: Net, x: Tensor, domain: str, *, radius: float, xi: float = 1.0, iterations: int = 1
) -> Tensor:
    """VAT of one domain's images x: (B, C, H, W) -> scalar; radius, xi and iterations: vat_loss.

    The passes share one dropout-free net, whose running statistics stay put: also the one that says
    what is to hold, since the update's own had dropout and maybe another batch.
    """

    def logits(images: Tensor) -> Tensor:
        out: Tensor = net(images, domain).logits
        return out

    with repeatable(net):
        with torch.no_grad():
            clean = logits(x)
        return vat_loss(logits, x, clean, radius=radius, xi=xi, iterations=iterations)
