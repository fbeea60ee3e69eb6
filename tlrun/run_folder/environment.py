"""Where a run took place: versions, machine, code, git state. Written to environment.json."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from tlrun.config.packaged import PACKAGE, conf_dir

PACKAGES = (
    "tlrun torch torchvision numpy scipy scikit-learn pillow hydra-core omegaconf timm safetensors "
    "peft torchjd quadprog"
).split()
INSTALLED = tuple(f"{root}{os.sep}" for root in (PACKAGE, sys.base_prefix + f"{os.sep}lib"))
COMPARED = ("versions", "cpu", "device", "threads", "git", "code")  # what may change a result


def collect_environment(data_info: dict[str, Any], device: Any = None) -> dict[str, Any]:
    """data_info: what the data object says of its sets (counts, checksums, licences). device: the
    torch.device that trains."""
    import torch  # only a run asks for this, and it has torch loaded

    return {
        "versions": {"python": platform.python_version(), **package_versions()},
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu": {
            "model": cpu_model(),
            "capability": torch.backends.cpu.get_cpu_capability(),  # the kernels that torch picks
            "cores": os.cpu_count(),
            "memory_gb": memory_gb(),
        },
        "devices": devices(),
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "git": {"working_folder": git_state(Path.cwd()), "tlrun": git_state(PACKAGE)},
        "code": {"tlrun": source_hashes(), "own": own_modules()},
        "command": sys.argv,
        "working_folder": str(Path.cwd()),
        "data": data_info,
    }


@cache
def package_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def with_history(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """`now` of a run that goes on, with what it was trained in so far where that was another."""
    earlier = list(before.get("earlier", ()))
    compared = {key: before[key] for key in COMPARED if key in before}
    if any(now.get(key) != value for key, value in compared.items()):
        earlier.append(compared)
    origin = {"init": before["init"]} if "init" in before else {}  # it may be gone by now
    return {**now, **origin, **({"earlier": earlier} if earlier else {})}


# ---- code -----------------------------------------------------------------------------------


def git_state(folder: Path) -> dict[str, Any] | None:
    """{"sha", "dirty", "diff"} of the repository around `folder`; None without one or a commit.

    diff: hash of the uncommitted changes to files that git knows; None if there are none.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                # no program that the repository's own settings name: it may be anybody's
                ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments],
                capture_output=True,
                timeout=10,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None

    sha = git("rev-parse", "HEAD") if shutil.which("git") else None
    if sha is None:
        return None
    diff = git("diff", "HEAD", "--full-index", "--no-ext-diff", "--no-textconv")
    return {
        "sha": sha,
        "dirty": bool(git("status", "--porcelain")),
        "diff": _short_hash([diff.encode()]) if diff else None,
    }


def source_hashes() -> dict[str, str]:
    """Folder of tlrun -> hash of its modules and configuration files, in a checkout or installed.

    By folder, so that a comparison tells where the code is another, with or without git.
    """
    conf, folders = conf_dir().resolve(), dict[str, list[bytes]]()
    files = [("tlrun", PACKAGE, file) for file in PACKAGE.rglob("*.py")]
    files += [("conf", conf, file) for file in conf.rglob("*.yaml")]
    for name, root, file in sorted(files, key=lambda entry: str(entry[2])):
        parts = file.relative_to(root).parts
        pieces = folders.setdefault("/".join([name, *parts[:-1][:1]]), [])
        pieces += ["/".join(parts).encode(), file.read_bytes()]
    return {folder: _short_hash(content) for folder, content in sorted(folders.items())}


def own_modules() -> dict[str, str]:
    """Loaded modules that lie below the working folder (the user's own methods) -> their hash."""
    here, hashes = Path.cwd().resolve(), {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not file or f"{os.sep}site-packages{os.sep}" in file or file.startswith(INSTALLED):
            continue  # thousands, and to resolve the path of each takes a fifth of a second
        if not Path(file).is_file():
            continue
        path = Path(file).resolve()
        if "site-packages" in path.parts or any(
            path.is_relative_to(folder) for folder in (PACKAGE, sys.prefix, sys.base_prefix)
        ):
            continue
        if path.is_relative_to(here):
            hashes[path.relative_to(here).as_posix()] = _short_hash([path.read_bytes()])
    return dict(sorted(hashes.items()))


def _short_hash(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(len(piece).to_bytes(8, "big") + piece)
    return digest.hexdigest()[:12]


# ---- machine --------------------------------------------------------------------------------


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


def device_name(device: Any) -> str | None:
    """The torch.device that trains, by the name of its model: "cpu", "NVIDIA H100 80GB HBM3"."""
    import torch

    if device is None:
        return None
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)


def devices() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
