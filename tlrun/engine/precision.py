"""Device and number format: what `auto` means, and the autocast context that follows from it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from tlrun.errors import ConfigError
from tlrun.machine import assigned_gpu


def resolve_device(name: str) -> torch.device:
    """`auto` = cuda, else mps, else cpu. Raises ConfigError for a device that is not here."""
    if name == "auto":
        if torch.cuda.is_available():
            return _own_gpu()
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(name.partition(":")[0], False):
        here = ", ".join(kind for kind, found in present.items() if found)
        raise ConfigError(f"trainer.device={name} is not available here; use one of: auto, {here}")
    return _own_gpu() if name == "cuda" else torch.device(name)


def _own_gpu() -> torch.device:
    """The GPU that a sweep dealt to this job, else PyTorch's current one."""
    index = assigned_gpu()
    if index is None:
        return torch.device("cuda")
    torch.cuda.set_device(index)  # for all that names no index
    return torch.device("cuda", index)


def cpu_has_fast_bf16() -> bool:
    """True where the processor multiplies bfloat16 in hardware (AVX512_BF16 or AMX)."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_precision(name: str, device: torch.device) -> str:
    """`auto` = bf16 where the hardware is fast at it, else fp32 (docs/decisions.md, Precision)."""
    if name == "auto":
        if device.type == "cuda":
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
        return "bf16" if device.type == "cpu" and cpu_has_fast_bf16() else "fp32"
    if name == "fp16" and device.type == "cpu":
        raise ConfigError("trainer.precision=fp16 needs a GPU; on a CPU use auto, bf16 or fp32")
    return name


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(
        device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16
    )
