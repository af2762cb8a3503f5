"""NEIGHBORHOOD: each video token attends to its own frame of tokens and to some frames before it, causally in time.

An example of what a backend can do with what it is told of a call: the token grid says where a frame begins and ends,
the step and the layer where attention stays full. Frames are contiguous in the sequence, so a frame's attention is
torch's own on a slice of the keys, with no mask at all.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fastvideo_core import (
    AttentionBackend,
    AttentionCall,
    AttentionFunction,
    Capabilities,
    Probe,
    Role,
    Run,
    TokenLayout,
    hookimpl,
)
from fastvideo_core.errors import BackendMismatchError, InputError

if TYPE_CHECKING:
    import torch

api_version = 1


class Neighborhood(AttentionBackend):
    """FASTVIDEO_NEIGHBORHOOD_FRAMES frames of tokens before each are seen (default 3); the first
    FASTVIDEO_NEIGHBORHOOD_DENSE_LAYERS layers (default 1) and the share FASTVIDEO_NEIGHBORHOOD_DENSE of the first steps
    (default 0.25) have full attention.
    """

    name = "NEIGHBORHOOD"
    capabilities = Capabilities(roles=frozenset({Role.SELF}), lossless=False, tolerance=0.02)

    def __init__(self) -> None:
        self._local_calls = 0

    def probe(self) -> Probe:
        return Probe(True, kernel="fv_neighborhood", version="0.1.0")

    def load(self) -> AttentionFunction:
        from torch import cat
        from torch.nn.functional import scaled_dot_product_attention as sdpa

        frames_seen, dense_layers = _number("FRAMES", 3, 10_000), _number("DENSE_LAYERS", 1, 10_000)
        dense_share = _number("DENSE", 0.25, 1)

        def full(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
            return sdpa(query, key, value, scale=call.scale).transpose(1, 2)

        def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            if call.layout is None or call.layer < dense_layers or call.step < dense_share * call.num_steps:
                return full(query, key, value, call)
            self._local_calls += 1
            parts = []
            for begin, end, first in _frames(call.layout, int(frames_seen)):
                parts.append(full(query[:, begin:end], key[:, first:end], value[:, first:end], call))
            return cat(parts, dim=1)

        return attend

    def start_run(self, run: Run) -> None:
        self._local_calls = 0
        if run.layout.grid[0] == 1:
            raise BackendMismatchError("NEIGHBORHOOD needs more than one frame of tokens; choose another backend")

    def run_details(self) -> dict[str, Any]:
        return {"frames_seen": int(_number("FRAMES", 3, 10_000)), "calls_with_a_window": self._local_calls}


def _frames(layout: TokenLayout, seen: int) -> list[tuple[int, int, int]]:
    """For each frame the places of its first token, of the one behind its last, and of the first that it sees."""
    frames, height, width = layout.grid
    size = height * width
    return [(n * size, (n + 1) * size, max(0, n - seen) * size) for n in range(frames)]


def _number(name: str, default: float, most: float) -> float:
    """A setting from the environment."""
    variable = f"FASTVIDEO_NEIGHBORHOOD_{name}"
    text = os.environ.get(variable, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise InputError(f"{variable} is {text!r}, it must be a number from 0 to {most}")
    return value


@hookimpl
def fastvideo_attention_backends() -> list[AttentionBackend]:
    return [Neighborhood()]
