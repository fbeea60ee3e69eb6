"""Imported once by the server from which `hostile.Pool` forks: what every command would import.

No backward pass: where there is a GPU, torch would refuse another one after a fork.
"""

import importlib
import os
import pkgutil
import tempfile

import torch

import tlrun
from tlrun.config.compose import compose
from tlrun.data.sets.digits import enlarged

STARTED_BY_NAME = ("tlrun.__main__", "tlrun.experiment.worker")

# torch makes this folder on import of its compiler, wherever temporary files go
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/torchinductor")
torch.set_num_threads(1)  # a thread would not survive the fork
for module in pkgutil.walk_packages(tlrun.__path__, "tlrun."):
    if module.name not in STARTED_BY_NAME:
        importlib.import_module(module.name)
weight = torch.nn.Parameter(torch.zeros(1))
weight.grad = torch.zeros(1)
torch.optim.Adam([weight]).step()  # seconds of imports
compose()
enlarged()
