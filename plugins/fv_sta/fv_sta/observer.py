"""Measure, during a generation with full attention, how far each window would have been off."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fv_sta.strategy import Uniform
from fv_sta.tiles import Tiling, Triple
from fv_sta.windows import FULL

if TYPE_CHECKING:
    import torch

    from fastvideo_core import AttentionCall
    from fv_sta.backend import SlidingTileAttention

OBSERVER: ContextVar[Observer | None] = ContextVar("fv_sta_observer", default=None)
"""Set while a search generates videos."""


class Observer:
    """Runs every window beside full attention, whose output goes on into the model.

    The error of a window is the Euclidean norm of the difference over that of full attention's output, per head.
    """

    def __init__(self, windows: Sequence[Triple]) -> None:
        self.windows = tuple(windows)
        self.strategy = Uniform(FULL, 0.0)
        self.busy = False
        self.tiling: Tiling | None = None
        self.text = (0, 0)
        self._errors: dict[tuple[int, int], list[torch.Tensor]] = {}

    def observe(
        self,
        backend: SlidingTileAttention,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        call: AttentionCall,
    ) -> torch.Tensor:
        """Full attention, with every window's error noted."""
        import torch

        assert call.layout is not None

        def with_window(window: Triple) -> torch.Tensor:
            self.strategy = Uniform(window, 0.0)
            return backend.attend(query, key, value, call)

        self.tiling = backend.tiling(call.layout.grid)
        video = self.tiling.places if call.layout.ordered else self.tiling.tokens
        self.text = (query.shape[1] - video, key.shape[1] - video)
        order = backend.token_order(call.layout, query.device) if call.layout.ordered else None
        tokens = slice(0, video) if order is None else order.scatter
        self.busy = True
        try:
            exact = with_window(FULL)
            norm = _per_head(exact[:, tokens])
            errors = [_per_head((with_window(window) - exact)[:, tokens]) / norm for window in self.windows]
        finally:
            self.busy = False
        self._errors.setdefault((call.step, call.layer), []).append(torch.stack(errors))
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
