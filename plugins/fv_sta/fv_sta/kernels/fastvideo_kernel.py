"""The published kernel's successor (package fastvideo-kernel), which has its canvases and one window more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastvideo_core import Probe
from fastvideo_core.kernels import Kernel
from fv_sta.kernels import st_attn
from fv_sta.kernels.published import Windows, caller, mismatch_of
from fv_sta.sparse import Sparse

if TYPE_CHECKING:
    import torch

VERSION = "0.3.5"
KERNEL = Kernel(
    "fastvideo-kernel",
    distributions=("fastvideo-kernel",),
    modules=("fastvideo_kernel",),
    function="sliding_tile_attention",
    generations=frozenset({9}),
    install=f"pip install fastvideo-kernel=={VERSION}",
)
WINDOWS: Windows = {**st_attn.WINDOWS, (30, 48, 80): st_attn.WINDOWS[30, 48, 80] | {(3, 6, 10)}}
"""All that 0.3.5 was compiled for, in tiles: the template arguments that its extension names."""


def probe(device: str = "cuda") -> Probe:
    """Whether it can be used on that device."""
    found = KERNEL.probe(device)
    if not found.available or found.version == VERSION:
        return found
    reason = f"fastvideo-kernel {found.version} is installed; {VERSION} is the version whose windows are known"
    return Probe(False, reason=reason, remedy=f"Install it: {KERNEL.install}")


def mismatch(sparse: Sparse, head_dim: int, dtype: str, device: str) -> str | None:
    """Why it cannot compute a call, or None."""
    return mismatch_of("fastvideo_kernel", WINDOWS, sparse, head_dim, dtype, device)


def load() -> Callable[..., torch.Tensor]:
    """The function to call with query, key, value and a Sparse."""
    return caller(KERNEL.load())
