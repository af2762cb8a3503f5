"""Measure, during a generation with full attention, how far each window would have been off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fv_sta.tiles import Tiling, Triple
from fv_sta.windows import FULL

if TYPE_CHECKING:
    import torch

    from fastvideo_core import AttentionCall

OBSERVER: ContextVar[Observer | None] = ContextVar("fv_sta_observer", default=None)
"""Set while a search generates videos."""


class Observer:
    """Runs every window beside full attention, whose output goes on into the model.

    The error of a window is the Euclidean norm of the difference over that of full attention's output, per head.
    """

    def __init__(self, windows: Sequence[Triple]) -> None:
        self.windows = tuple(windows)
        self.tiling: Tiling | None = None
        self.text = (0, 0)
        self._errors: dict[tuple[int, int], list[torch.Tensor]] = {}

    def observe(
        self,
        attend: Callable[[Triple], torch.Tensor],
        tokens: torch.Tensor | slice,
        tiling: Tiling,
        text: tuple[int, int],
        call: AttentionCall,
    ) -> torch.Tensor:
        """Full attention, with every window's error noted.

        Args:
            attend: computes the call with a window for all heads.
            tokens: where the video's tokens are in what it returns.
            text: text tokens among the queries and among the keys.
        """
        import torch

        self.tiling, self.text = tiling, text
        exact = attend(FULL)
        served = call.served
        norm = _per_head(exact[:, tokens])
        errors = [_per_head((attend(window) - exact)[:, tokens]) / norm for window in self.windows]
        self._errors.setdefault((call.step, call.layer), []).append(torch.stack(errors))
        call.served = served
        return exact

    def take(self) -> NDArray[np.float64]:
        """Mean errors since the last time, (steps, layers, windows, heads)."""
        steps, layers = (1 + max(place[axis] for place in self._errors) for axis in (0, 1))
        rows = [
            [np.mean([e.double().cpu().numpy() for e in self._errors[step, layer]], axis=0) for layer in range(layers)]
            for step in range(steps)
        ]
        self._errors = {}
        return np.array(rows)


def _per_head(tensor: torch.Tensor) -> torch.Tensor:
    """The Euclidean norm of each head, from (batch, tokens, heads, head_dim)."""
    import torch

    norm: torch.Tensor = torch.linalg.vector_norm(tensor.float(), dim=(0, 1, 3))
    return norm
