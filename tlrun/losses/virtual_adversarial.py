"""Virtual adversarial training (VAT): predictions that do not change in the worst direction.

    min  mean_x KL( p(x) ‖ p(x + r_adv) ),     r_adv = argmax_{‖r‖ = ε} KL( p(x) ‖ p(x + r) )

Miyato et al., "Virtual adversarial training: a regularization method for supervised and
semi-supervised learning", TPAMI 2018, eq. 5-7 and algorithm 1. No gradient flows through p(x) or
r_adv.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tlrun.fp32 import in_fp32


def vat_loss(
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    logits: Tensor,
    *,
    radius: float,
    xi: float,
    iterations: int,
) -> Tensor:
    """forward: x -> logits (B, K); x: (B, ...); logits: (B, K), those of x -> scalar fp32.

    radius: ε, the length of each example's r in the units of x. xi: length of the step at which the
    direction is probed. iterations: of the power method, each one more pass forward and back.

    `forward` is called iterations + 1 times. Nothing is added to the `.grad` of parameters, but
    batch norm in training mode counts each call: open `tlrun.models.repeatable.repeatable(net)`
    around this and around the pass that makes `logits`. It keeps the running statistics and draws
    no dropout, without which p(x + r) differs from p(x) by chance rather than by r.
    """
    logits = logits.detach()
    direction = adversarial_direction(forward, x, logits, xi=xi, iterations=iterations)
    return divergence(logits, forward(x.detach() + radius * direction)).mean()


def adversarial_direction(
    forward: Callable[[Tensor], Tensor], x: Tensor, logits: Tensor, *, xi: float, iterations: int
) -> Tensor:
    """Unit vectors (B, ...) along which the prediction changes most; 0 where it does not change.

    From a random start, d ← ∇_r KL(p(x) ‖ p(x + r)) at r = ξd, scaled to 1. That is the power
    method on the Hessian at r = 0, where the gradient vanishes.
    """
    x, logits = x.detach(), logits.detach()
    direction = _unit(torch.randn_like(x))
    for _ in range(iterations):
        with torch.enable_grad():
            step = (xi * direction).requires_grad_()
            apart = divergence(logits, forward(x + step)).sum()
            # `grad`, not `backward`: parameters must not collect any
            (gradient,) = in_fp32(torch.autograd.grad)(apart, step)
        direction = _unit(gradient)
    return direction


@in_fp32
def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """KL(softmax(logits) ‖ softmax(others)) of each example: (B, K), (B, K) -> (B,) fp32."""
    log_p, log_q = logits.log_softmax(1), others.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


@in_fp32
def _unit(d: Tensor) -> Tensor:
    """Each example of d: (B, ...) scaled to length 1. By its largest entry first: squares of a tiny
    gradient would underflow."""
    flat = d.flatten(1)
    flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(1e-30)
    return (flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-6)).view_as(d)
