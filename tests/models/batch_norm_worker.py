"""One of several gloo processes: python batch_norm_worker.py RANK WORLD FOLDER."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from tlrun.models.batch_norm import convert


def make_net() -> nn.Module:
    torch.manual_seed(0)
    conv = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, momentum=0.3), nn.ReLU()]
    return nn.Sequential(*conv, nn.Flatten(), nn.Linear(6 * 36, 5), nn.BatchNorm1d(5, affine=False))


def global_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Far from zero mean, so that a careless E[x²] − E[x]² would show."""
    draws = torch.Generator().manual_seed(1)
    return 3 + torch.randn(8, 3, 8, 8, generator=draws), torch.randn(8, 5, generator=draws)


def loss_of(net: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (net(x) * weight).pow(2).sum(1).mean() + net(x + 1).pow(3).mean()


def main(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    net = convert(make_net(), "per_domain", synchronize=True)
    x, weight = global_batch()
    x = x[rank::world].clone().requires_grad_()
    loss_of(net, x, weight[rank::world]).backward()
    for parameter in net.parameters():  # as the engine does
        dist.all_reduce(parameter.grad)
        parameter.grad /= world
    if rank == 0:
        grads = {name: p.grad for name, p in net.named_parameters()}
        result = {"grads": grads, "x_grad": x.grad / world, "state": net.state_dict()}
        torch.save(result, folder / "result.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
