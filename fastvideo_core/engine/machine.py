"""What the receipt tells of the machine: versions and memory."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version


def versions_of(distributions: set[str]) -> dict[str, str]:
    """Versions of Python, of the libraries that compute, and of the given distributions."""
    found = {"python": platform.python_version()}
    for name in sorted({"torch", "diffusers", "transformers", *distributions}):
        try:
            found[name] = version(name)
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
