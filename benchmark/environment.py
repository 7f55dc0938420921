"""Where a cell runs: device, commit, versions of Python and of the packages that take part in a number."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from functools import cache

from registry import ROOT
from registry.errors import DeviceError
from results.record import Provenance

JOBS = "MEDROBUST_JOBS"
"""Environment variable: how many processes of one run share this machine."""
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "torchattacks",
    "pyautoattack",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "statsmodels",
    "monai",
    "pillow",
    "safetensors",
)
"""Distributions whose versions a record names."""


def resolve_device(asked: str) -> str:
    """Returns the torch name of a device: "cpu" or "cuda:K".

    Args:
        asked: "auto" (the first CUDA device, else the CPU), "cpu", "cuda" or "cuda:K".

    Raises:
        DeviceError: The text is none of these, or this machine has no such device.
    """
    if asked == "cpu":
        return "cpu"
    if not re.fullmatch(r"auto|cuda(:\d+)?", asked):
        raise DeviceError(f"--device is auto, cpu or cuda:K, got {asked!r}")
    count = cuda_devices()
    if asked == "auto":
        return "cuda:0" if count else "cpu"
    index = int(asked.partition(":")[2] or 0)
    if index < count:
        return f"cuda:{index}"
    have = "no CUDA device" if not count else f"only {count} (cuda:0 to cuda:{count - 1})"
    instead = "--device cpu" if not count else "--device cuda:0"
    raise DeviceError(f"asked for {asked}, this machine has {have}; use {instead}")


def cuda_devices() -> int:
    """Returns the number of CUDA devices that torch can use."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def provenance(device: str) -> Provenance:
    """Returns the facts about this machine and checkout, with the present moment as start.

    Args:
        device: torch name of the device, "cpu" or "cuda:K".
    """
    commit, dirty = checkout()
    return Provenance(
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        device=device_name(device),
        packages=package_versions(),
    )


def device_name(device: str) -> str:
    """Returns the device for people: "cpu (2 threads)" or the name of the GPU, and how many jobs of a run share it."""
    import torch

    name = f"cpu ({torch.get_num_threads()} threads)" if device == "cpu" else torch.cuda.get_device_name(device)
    jobs = os.environ.get(JOBS, "1")
    return name if jobs == "1" else f"{name}, {jobs} jobs side by side"


def hardware(device: str) -> str:
    """Returns what the last bits of a result depend on: the GPU, or the instructions and threads of the CPU."""
    import torch

    from attacks.hardware import knows_bfloat16

    if device != "cpu":
        return torch.cuda.get_device_name(device)
    half = ", bfloat16" if knows_bfloat16(torch.device("cpu")) else ""
    instructions = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}{half}"
    return f"{instructions}, {torch.get_num_threads()} threads"


def package_versions() -> dict[str, str]:
    """Returns the versions of the packages that take part in a number; absent ones are left out."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


NO_CODE = ("results/records", "results/measurements.json", "reports/site", "defenses/weights", "docs", "README.md")
"""Tracked paths that hold no code."""


@cache
def checkout() -> tuple[str | None, bool]:
    """Returns the git commit of the checkout and whether tracked code differs; (None, False) without git.

    Records, pages and texts change no number, and a record names its weights and data by their checksums.
    """
    commit = _git("rev-parse", "HEAD")
    code = (".", *(f":(exclude){path}" for path in NO_CODE))
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *code)
    return commit or None, bool(changed)


def _git(*arguments: str) -> str:
    try:
        answer = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
