"""The block lists of sliding tiles as a dense mask: exact, and nothing to compile for seconds."""

from __future__ import annotations

import torch
from fv_sta.kernels import flex as flex
from fv_sta.tiles import BLOCK

compiled_flex = flex._compiled_flex
"""What makes FlexAttention's kernel, as users have it."""


def stand_in() -> None:
    """From now on, `flex` computes like this in this process; `compiled_flex` is what it had."""
    flex._compiled_flex = lambda: attend  # type: ignore[assignment]  # without its cache


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    full_count: torch.Tensor,
    full: torch.Tensor,
    partial_count: torch.Tensor,
    partial: torch.Tensor,
    real: torch.Tensor,
    scale: float | None,
) -> torch.Tensor:
    """Attention of (batch, heads, places, size) to listed blocks; in those of `partial`, to what is real."""
    rows, columns = query.shape[2], key.shape[2]
    whole, cut = (_places(*lists)[..., :rows, :columns] for lists in ((full_count, full), (partial_count, partial)))
    mask = whole | cut & real
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=scale).nan_to_num(0.0)


def _places(count: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """Which places the first `count` of the blocks in each row have: (1, 1 or heads, rows, columns)."""
    listed = torch.arange(blocks.shape[-1], device=blocks.device) < count[..., None]
    seen = torch.zeros_like(blocks, dtype=torch.int32).scatter_add(-1, blocks.long(), listed.int()) > 0
    return seen.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)
