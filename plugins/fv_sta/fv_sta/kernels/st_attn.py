"""The published kernel (Zhang et al. 2025, package st_attn), kept from what it computes wrongly or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastvideo_core import Probe
from fastvideo_core.kernels import Kernel
from fv_sta.kernels.published import Windows, caller, mismatch_of, triples
from fv_sta.sparse import Sparse

if TYPE_CHECKING:
    import torch

KERNEL = Kernel(
    "st_attn",
    distributions=("st-attn",),
    modules=("st_attn",),
    function="sliding_tile_attention",
    generations=frozenset({9}),
    install="pip install st-attn==0.0.6",
    rebuild="pip install st-attn==0.0.6 --no-binary st-attn --no-build-isolation",
)

WINDOWS: Windows = {
    (30, 48, 80): triples("1 6 10, 3 3 3, 3 3 5, 3 5 5, 5 1 1, 5 1 10, 5 3 3, 5 3 5, 5 5 5, 5 5 7, 5 6 1, 5 6 10"),
    (36, 48, 48): triples("1 1 6, 1 6 1, 1 6 6, 3 3 3, 3 3 6, 3 6 3, 3 6 6, 6 1 1, 6 1 6, 6 3 3, 6 3 6, 6 6 1, 6 6 6"),
    (18, 48, 80): triples(
        "1 3 10, 1 5 7, 1 5 9, 1 5 10, 1 6 5, 1 6 7, 1 6 10, 3 1 1, 3 1 10, 3 3 3, 3 3 5, 3 3 10, 3 5 5, 3 5 7, 3 5 9, "
        "3 6 1, 3 6 3, 3 6 10"
    ),
}
"""All that 0.0.6 was compiled for, in tiles. Any other window ends the process, or returns memory that was not written.

tests/test_gpu_sta.py holds each of them against FlexAttention.
"""


def probe(device: str = "cuda") -> Probe:
    """Whether it can be used on that device."""
    found = KERNEL.probe(device)
    return _check(found) if found.available else found


def mismatch(sparse: Sparse, head_dim: int, dtype: str, device: str) -> str | None:
    """Why it cannot compute a call, or None."""
    return mismatch_of("st_attn", WINDOWS, sparse, head_dim, dtype, device)


def load() -> Callable[..., torch.Tensor]:
    """The function to call with query, key, value and a Sparse."""
    return caller(KERNEL.load())


def _check(found: Probe) -> Probe:
    """It reports an extension that failed to load by a missing function only."""
    import st_attn

    version = found.version
    if getattr(st_attn, "sta_fwd", None) is None:
        reason = f"st_attn {version} is installed, but its CUDA extension did not load"
        remedy = "Install it for this torch: pip install st-attn==0.0.6"
        return Probe(False, reason=reason, remedy=remedy, broken=True)
    if version != "0.0.6":
        reason = f"st_attn {version} is installed; 0.0.6 is the version whose faults are known and kept away from"
        return Probe(False, reason=reason, remedy="Install it: pip install st-attn==0.0.6")
    return found
