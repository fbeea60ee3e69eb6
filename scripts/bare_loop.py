"""DANN as one would write it by hand, for bench_loop.py: no configs, checkpoints or tlrun."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, strength):
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return -ctx.strength * grad, None


def block(channels_in, channels, *dropout):
    conv = nn.Conv2d(channels_in, channels, 5)
    return nn.Sequential(
        conv, nn.BatchNorm2d(channels), *dropout, nn.MaxPool2d(2), nn.ReLU(inplace=True)
    )


def train(source, labels, target, steps, batch, bf16):
    """source, target: uint8 (n, 3, 28, 28); labels: (n,)."""
    torch.manual_seed(0)
    body = nn.Sequential(block(3, 32), block(32, 48, nn.Dropout2d(0.25)), nn.Flatten())
    head = nn.Sequential(
        nn.Linear(768, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    domain = nn.Sequential(nn.Linear(768, 100), nn.ReLU(), nn.Linear(100, 1))
    net = nn.ModuleList([body, head, domain]).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    known, unknown = torch.ones(batch), torch.zeros(batch)
    for step in range(steps):
        strength = 2 / (1 + math.exp(-10 * step / steps)) - 1
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
        i, j = torch.randint(len(source), (batch,)), torch.randint(len(target), (batch,))
        xs = source[i].expand(-1, 3, -1, -1).float().div_(127.5).sub_(1)
        xt = target[j].float().div_(127.5).sub_(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            fs, ft = body(xs), body(xt)
            head_loss = F.cross_entropy(head(fs).float(), labels[i])
            head(ft)  # as tlrun: the target's statistics of the label head
            logits = domain(Reverse.apply(torch.cat([fs, ft]), strength)).squeeze(1).float()
            loss = head_loss + F.binary_cross_entropy_with_logits(
                logits, torch.cat([known, unknown])
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
