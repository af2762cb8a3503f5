"""The published kernel (Zhang et al. 2025, package st_attn), kept from what it computes wrongly or not at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastvideo_core import Probe
from fastvideo_core.kernels import Kernel
from fv_sta.sparse import Sparse
from fv_sta.tiles import Triple

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

CANVASES: dict[Triple, str] = {(30, 48, 80): "30x48x80", (36, 48, 48): "36x48x48", (18, 48, 80): "18x48x80"}


def _triples(text: str) -> frozenset[Triple]:
    return frozenset((int(time), int(height), int(width)) for time, height, width in map(str.split, text.split(",")))


WINDOWS: dict[Triple, frozenset[Triple]] = {
    (30, 48, 80): _triples("1 6 10, 3 3 3, 3 3 5, 3 5 5, 5 1 1, 5 1 10, 5 3 3, 5 3 5, 5 5 5, 5 5 7, 5 6 1, 5 6 10"),
    (36, 48, 48): _triples("1 1 6, 1 6 1, 1 6 6, 3 3 3, 3 3 6, 3 6 3, 3 6 6, 6 1 1, 6 1 6, 6 3 3, 6 3 6, 6 6 1, 6 6 6"),
    (18, 48, 80): _triples(
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
    if device != "cuda" or dtype != "bfloat16" or head_dim != 128:
        return f"st_attn takes bfloat16 and head size 128 on cuda, not {dtype} and {head_dim} on {device}"
    grid = sparse.tiling.grid
    if sparse.tiling.tile != (6, 8, 8) or grid not in CANVASES:
        return f"st_attn takes the canvases {', '.join(CANVASES.values())} in tiles of 6x8x8 alone"
    least, most = (1, 256) if grid == (30, 48, 80) else (0, 0)
    if not least <= sparse.text_keys <= most:
        needs = "with 1 to 256 tokens of text" if most else "without text"
        return f"st_attn takes the canvas {CANVASES[grid]} {needs}, not with {sparse.text_keys}"
    wrong = set(sparse.windows) - WINDOWS[grid]
    return f"st_attn does not compute the windows {sorted(wrong)} on this canvas" if wrong else None


def load() -> Callable[..., torch.Tensor]:
    """The function to call with query, key, value and a Sparse."""
    function = KERNEL.load()

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sparse: Sparse) -> torch.Tensor:
        import torch

        if sparse.scale is not None:
            query = query * (sparse.scale * math.sqrt(query.shape[-1]))
        padding = query.shape[1] - key.shape[1]  # text tokens that are not real; nothing looks at what they get
        heads_first = [x[:, : key.shape[1]].transpose(1, 2).contiguous() for x in (query, key, value)]
        windows = [list(window) for window in sparse.windows]
        shape = CANVASES[sparse.tiling.grid]
        result: torch.Tensor = function(*heads_first, windows, sparse.text_keys, bool(sparse.text_keys), shape)
        return torch.nn.functional.pad(result.transpose(1, 2), (0, 0, 0, 0, 0, padding))

    return attend


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
