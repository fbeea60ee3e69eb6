"""DANN as one would write it by hand, for bench_loop.py: no configs, checkpoints or tlrun."""

import math
import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Form:
    """How the same step may be written. joint: one forward over both domains, else one each."""

    channels_last: bool
    joint: bool

    def __str__(self) -> str:
        layout = "channels last" if self.channels_last else "channels first"
        return f"{layout}, {'one forward' if self.joint else 'a forward for each domain'}"


FORMS = [Form(last, joint) for last in (False, True) for joint in (False, True)]


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


class Bare:
    """source, target: uint8 (n, C, 28, 28) with C = 1 or 3; labels: (n,)."""

    def __init__(self, form, source, labels, target, batch, bf16):
        torch.manual_seed(0)
        self.form, self.batch, self.bf16 = form, batch, bf16
        self.source, self.labels, self.target = source, labels, target
        body = nn.Sequential(block(3, 32), block(32, 48, nn.Dropout2d(0.25)), nn.Flatten())
        head = nn.Sequential(
            nn.Linear(768, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)
        )
        domain = nn.Sequential(nn.Linear(768, 100), nn.ReLU(), nn.Dropout(0.5), nn.Linear(100, 1))
        self.net = nn.ModuleList([body, head, domain]).train()
        if form.channels_last:
            self.net.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3, fused=True)
        self.is_source = torch.cat([torch.ones(batch), torch.zeros(batch)])

    def draw(self):
        i = torch.randint(len(self.source), (self.batch,))
        j = torch.randint(len(self.target), (self.batch,))
        source = self.source[i].expand(-1, 3, -1, -1).float().div_(127.5).sub_(1)
        target = self.target[j].expand(-1, 3, -1, -1).float().div_(127.5).sub_(1)
        return source, self.labels[i], target

    def forward_backward(self, source, labels, target, strength):
        body, head, domain = self.net
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            if self.form.joint:
                features = body(torch.cat([source, target]))
            else:
                features = torch.cat([body(source), body(target)])
            logits = head(features[: self.batch]).float()
            told = domain(Reverse.apply(features, strength)).squeeze(1).float()
            loss = F.cross_entropy(logits, labels)
            loss = loss + F.binary_cross_entropy_with_logits(told, self.is_source)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()

    def train(self, steps):
        """CPU seconds of a step, the first left out."""
        for step in range(steps):
            if step == 1:
                began = time.process_time()
            strength = 2 / (1 + math.exp(-10 * step / steps)) - 1
            for group in self.optimizer.param_groups:
                group["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
            self.forward_backward(*self.draw(), strength)
            self.optimizer.step()
        return (time.process_time() - began) / (steps - 1)

    def compute(self, steps):
        """CPU seconds of forward and backward alone, of a batch that is ready."""
        ready = self.draw()
        self.forward_backward(*ready, 0.5)
        began = time.process_time()
        for _ in range(steps):
            self.forward_backward(*ready, 0.5)
        return (time.process_time() - began) / steps
