"""FlashAttention 4's block-sparse forward (Dao et al., package flash-attn-4)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any

from fastvideo_core import KernelUsed, Probe
from fastvideo_core.kernels import Kernel, with_plain_strides
from fv_sta.sparse import Sparse, lists_per_head, real_places
from fv_sta.tiles import BLOCK, Tiling

if TYPE_CHECKING:
    import torch

KERNEL = Kernel(
    "FlashAttention 4 (block-sparse)",
    distributions=("flash-attn-4",),
    modules=("flash_attn.cute",),
    function="flash_attn_func",
    generations=frozenset({9, 10, 11}),
    install="pip install --pre flash-attn-4",
)


def probe(device: str = "cuda") -> Probe:
    """Whether it can be used on that device."""
    return KERNEL.probe(device)


def mismatch(sparse: Sparse, head_dim: int, dtype: str, device: str) -> str | None:
    """Why it cannot compute a call, or None."""
    if device != "cuda" or dtype not in ("bfloat16", "float16"):
        return f"fa4 takes bfloat16 and float16 on cuda, not {dtype} on {device}"
    if head_dim % 8 or not 64 <= head_dim <= 128:
        return f"fa4 takes head sizes from 64 to 128, not {head_dim}"
    return None


def load() -> Callable[..., torch.Tensor]:
    """The function to call with query, key, value and a Sparse."""
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch

    function = KERNEL.load()

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sparse: Sparse) -> torch.Tensor:
        full_count, full, partial_count, partial = lists_per_head(sparse, query.device)
        lists = BlockSparseTensorsTorch(
            mask_block_cnt=partial_count,
            mask_block_idx=partial,
            full_block_cnt=full_count,
            full_block_idx=full,
            block_size=(BLOCK, BLOCK),
        )
        options = _mask(sparse, query.device) if sparse.ragged else {}
        return _forward(function, query, key, value, sparse.scale, block_sparse_tensors=lists, **options)

    return attend


def _mask(sparse: Sparse, device: torch.device) -> dict[str, Any]:
    """What tells padding from tokens; the kernel looks at it in the blocks listed as partial, and in no other."""
    from fv_sta.kernels.fa4_mask import is_token

    return {"mask_mod": is_token, "aux_tensors": [_tokens(sparse.tiling, sparse.text_keys, device)]}


@lru_cache(maxsize=16)
def _tokens(tiling: Tiling, text_keys: int, device: torch.device) -> torch.Tensor:
    """1 for each key that is a token and 0 for padding, up to a whole block: int32."""
    import torch

    real = real_places(tiling, text_keys, device).int()
    return torch.nn.functional.pad(real, (0, -len(real) % BLOCK))


@cache
def dense(device: str, dtype: str, head_dim: int) -> tuple[Callable[..., torch.Tensor], KernelUsed] | None:
    """Its full attention, called with query, key, value and scale, and its name; None where it cannot be used."""
    fits = device.startswith("cuda") and dtype in ("bfloat16", "float16") and head_dim in range(8, 129, 8)
    if not fits or not (found := KERNEL.probe(device)).available:
        return None
    return partial(_forward, KERNEL.load()), KernelUsed(found.kernel, found.version)


def _forward(
    function: Callable[..., Any],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float | None,
    **options: Any,
) -> torch.Tensor:
    query, key, value = map(with_plain_strides, (query, key, value))
    out = function(query, key, value, softmax_scale=scale, causal=False, **options)
    result: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return result
