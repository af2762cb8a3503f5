"""The kernels that can compute sliding tiles, best first, and full attention beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fv_sta.kernels import fa4, flex, st_attn

if TYPE_CHECKING:
    import torch

KERNELS = {"fa4": fa4, "flex": flex, "st_attn": st_attn}
"""By name, in the order in which they are chosen. Each module has probe, mismatch and load."""


def dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None) -> torch.Tensor:
    """Full attention, (batch, tokens, heads, head_dim): by FlashAttention 4 where that is there, else torch's own."""
    from torch.nn.functional import scaled_dot_product_attention

    fits = query.device.type == "cuda" and query.element_size() == 2 and query.shape[-1] in range(8, 129, 8)
    if fits and (flash := fa4.dense()) is not None:
        return flash(query, key, value, scale)
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    return scaled_dot_product_attention(query, key, value, scale=scale).transpose(1, 2)
