"""For plugins whose kernel another distribution, or the hub, brings."""

from __future__ import annotations

from fastvideo_core.kernels.hub import HubKernel
from fastvideo_core.kernels.installed import (
    Kernel,
    cpp_compiler,
    first_that_runs,
    gpu_generation,
    with_plain_strides,
)

__all__ = ["HubKernel", "Kernel", "cpp_compiler", "first_that_runs", "gpu_generation", "with_plain_strides"]
