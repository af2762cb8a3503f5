"""What the two packages of the published kernel (Zhang et al. 2025) have in common: canvases, windows, and the call."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fv_sta.sparse import Sparse
from fv_sta.tiles import Triple

if TYPE_CHECKING:
    import torch

Windows = Mapping[Triple, frozenset[Triple]]
"""For each canvas those that a package was compiled for, in tiles."""

CANVASES: dict[Triple, str] = {(30, 48, 80): "30x48x80", (36, 48, 48): "36x48x48", (18, 48, 80): "18x48x80"}


def triples(text: str) -> frozenset[Triple]:
    """From text such as "3 3 3, 1 6 10"."""
    return frozenset((int(time), int(height), int(width)) for time, height, width in map(str.split, text.split(",")))


def mismatch_of(name: str, windows: Windows, sparse: Sparse, head_dim: int, dtype: str, device: str) -> str | None:
    """Why the package of that name cannot compute a call, or None."""
    if device != "cuda" or dtype != "bfloat16" or head_dim != 128:
        return f"{name} takes bfloat16 and head size 128 on cuda, not {dtype} and {head_dim} on {device}"
    grid = sparse.tiling.grid
    if sparse.tiling.tile != (6, 8, 8) or grid not in CANVASES:
        return f"{name} takes the canvases {', '.join(CANVASES.values())} in tiles of 6x8x8 alone"
    least, most = (1, 256) if grid == (30, 48, 80) else (0, 0)
    if not least <= sparse.text_keys <= most:
        needs = "with 1 to 256 tokens of text" if most else "without text"
        return f"{name} takes the canvas {CANVASES[grid]} {needs}, not with {sparse.text_keys}"
    wrong = set(sparse.windows) - windows[grid]
    return f"{name} does not compute the windows {sorted(wrong)} on this canvas" if wrong else None


def caller(function: Callable[..., Any]) -> Callable[..., torch.Tensor]:
    """The package's function as one of query, key, value and a Sparse."""

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
