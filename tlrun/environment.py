"""Where a run took place: versions, machine, git state. Written to environment.json."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "tlrun torch torchvision numpy scipy scikit-learn pillow hydra-core omegaconf timm safetensors"
).split()


def collect_environment(data_info: dict[str, Any]) -> dict[str, Any]:
    """data_info: what the data object says of its sets (counts, checksums, licences)."""
    return {
        "versions": {"python": platform.python_version(), **package_versions()},
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu": {"model": cpu_model(), "cores": os.cpu_count(), "memory_gb": memory_gb()},
        "devices": devices(),
        "git": {"working_folder": git_state(Path.cwd()), "tlrun": git_state(Path(__file__).parent)},
        "command": sys.argv,
        "working_folder": str(Path.cwd()),
        "data": data_info,
    }


def package_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_state(folder: Path) -> dict[str, Any] | None:
    """{"sha", "dirty"} of the repository around `folder`; None if there is none or no commit."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    sha = git("rev-parse", "HEAD") if shutil.which("git") else None
    if sha is None:
        return None
    return {"sha": sha, "dirty": bool(git("status", "--porcelain"))}


def cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None


def devices() -> list[str]:
    import torch  # only a run asks for this, and it has torch loaded

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
