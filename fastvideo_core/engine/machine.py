"""The machine that a run is on: its devices, memory and versions."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING

from fastvideo_core.discovery.metadata import installed_version

if TYPE_CHECKING:
    import torch


def versions_of(distributions: set[str]) -> dict[str, str]:
    """Versions of Python, of the libraries that compute, and of the given distributions."""
    found = {"python": platform.python_version()}
    for name in sorted({"torch", "diffusers", "transformers", *distributions}):
        try:
            found[name] = installed_version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def peak_memory_bytes(device: str) -> int | None:
    """Peak memory of the CUDA device, else of this process; None where the system does not tell."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:
        return None
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def name_of(device: str) -> str:
    """The name of the GPU; of a CPU its architecture and how many threads torch uses."""
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()}, {torch.get_num_threads()} threads"


def with_index(device: torch.device) -> torch.device:
    """The device with its index: a CUDA device without one is the current one."""
    import torch

    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def synchronize(device: torch.device) -> None:
    """Wait until the device is done with what it was given."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
