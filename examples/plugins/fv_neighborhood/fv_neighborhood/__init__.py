"""NEIGHBORHOOD: each video token attends to its own frame of tokens and to some frames before it, causally in time.

An example of what a backend can do with what it is told of a call: the token grid says where a frame begins and ends,
the step and the layer where attention stays full. Frames are contiguous in the sequence, so a frame's attention is
torch's own on a slice of the keys, with no mask at all.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    setting,
)
from fastvideo_core.errors import BackendMismatchError

if TYPE_CHECKING:
    import torch

api_version = 2


@dataclass(frozen=True)
class Settings:
    """What can be set, by name in Python and with --set, or as FASTVIDEO_NEIGHBORHOOD_FRAMES and so on."""

    frames: int = setting(3, "frames of tokens before its own that a token sees", ge=0)
    dense: float = setting(0.25, "share of the first steps with full attention", ge=0, le=1)
    dense_layers: int = setting(1, "first layers with full attention", ge=0)


class Neighborhood(AttentionBackend):
    """Self attention over a few frames; full attention in the first steps and layers."""

    name = "NEIGHBORHOOD"
    settings_type = Settings
    capabilities = Capabilities(roles=frozenset({Role.SELF}), lossless=False, tolerance=0.02)

    def __init__(self) -> None:
        self._local_calls = 0

    def probe(self) -> Probe:
        return Probe(True, kernel="fv_neighborhood", version="0.2.0")

    def load(self) -> AttentionFunction:
        from torch import cat
        from torch.nn.functional import scaled_dot_product_attention as sdpa

        wanted = self.settings

        def full(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
            return sdpa(query, key, value, scale=call.scale).transpose(1, 2)

        def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            if call.layout is None or call.layer < wanted.dense_layers or call.step < wanted.dense * call.num_steps:
                return full(query, key, value, call)
            self._local_calls += 1
            parts = []
            for begin, end, first in _frames(call.layout, wanted.frames):
                parts.append(full(query[:, begin:end], key[:, first:end], value[:, first:end], call))
            return cat(parts, dim=1)

        return attend

    def start_run(self, run: Run) -> None:
        self._local_calls = 0
        if run.layout.grid[0] == 1:
            raise BackendMismatchError("NEIGHBORHOOD needs more than one frame of tokens; choose another backend")
        if beside := run.layout.text_before + run.layout.text_after:
            raise BackendMismatchError(
                f"NEIGHBORHOOD goes by frames, and {beside} of this video's tokens stand beside its grid, as those of "
                "conditions do; choose another backend"
            )

    def run_details(self) -> dict[str, Any]:
        return {"calls_with_a_window": self._local_calls}


def _frames(layout: TokenLayout, seen: int) -> list[tuple[int, int, int]]:
    """For each frame the places of its first token, of the one behind its last, and of the first that it sees."""
    frames, height, width = layout.grid
    size = height * width
    return [(n * size, (n + 1) * size, max(0, n - seen) * size) for n in range(frames)]


@hookimpl
def fastvideo_attention_backends() -> list[AttentionBackend]:
    return [Neighborhood()]
