"""The kernels that can compute sliding tiles, best first, and full attention beside them."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastvideo_core import KernelUsed
from fv_sta.kernels import fa4, fastvideo_kernel, flex, st_attn
from fv_sta.kernels.measured import fastest_first

if TYPE_CHECKING:
    import torch

_MODULES = {"fa4": fa4, "st_attn": st_attn, "flex": flex, "fastvideo_kernel": fastvideo_kernel}
KERNELS = {name: _MODULES[name] for name in fastest_first()}
"""By name, in the order in which they are chosen. Each module has probe, mismatch and load."""


def dense(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
) -> tuple[torch.Tensor, KernelUsed]:
    """Full attention, (batch, tokens, heads, head_dim), and what computed it.

    That is FlashAttention 4 where it is there, else torch's own.
    """
    from torch.nn.functional import scaled_dot_product_attention

    flash = fa4.dense(str(query.device), str(query.dtype)[6:], query.shape[-1])
    if flash is not None:
        attend, used = flash
        return attend(query, key, value, scale), used
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    return scaled_dot_product_attention(query, key, value, scale=scale).transpose(1, 2), _torch_s_own()


@cache
def _torch_s_own() -> KernelUsed:
    return KernelUsed("torch.nn.functional.scaled_dot_product_attention", version("torch"))
