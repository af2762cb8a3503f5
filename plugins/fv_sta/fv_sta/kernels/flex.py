"""torch FlexAttention: any canvas, any device."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from fastvideo_core import Probe
from fastvideo_core.kernels import cpp_compiler
from fv_sta.sparse import Sparse, lists_per_head, real_places
from fv_sta.tiles import BLOCK

if TYPE_CHECKING:
    import torch


def probe(device: str = "cuda") -> Probe:
    """Whether it can be used on that device, or on a CPU where there is no CUDA."""
    import torch

    try:
        from torch.nn.attention import flex_attention
    except ImportError as error:
        return Probe(False, reason=f"torch {torch.__version__} has no FlexAttention: {error}", remedy="Upgrade torch")
    on_gpu = torch.cuda.is_available() and device.partition(":")[0] == "cuda"
    if not on_gpu and cpp_compiler() is None:
        reason = "FlexAttention is compiled, for which torch needs a C++ compiler on a CPU, and there is none"
        return Probe(False, reason=reason, remedy="Install g++, or name a compiler in CXX")
    return Probe(True, kernel=f"{flex_attention.__name__}.flex_attention", version=str(torch.__version__))


def mismatch(sparse: Sparse, head_dim: int, dtype: str, device: str) -> None:
    """It takes everything."""


def load() -> Callable[..., torch.Tensor]:
    """The function to call with query, key, value and a Sparse."""
    return _attend


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sparse: Sparse) -> torch.Tensor:
    lists = lists_per_head(sparse, query.device)
    real = real_places(sparse.tiling, sparse.text_keys, query.device)
    heads_first = (x.transpose(1, 2) for x in (query, key, value))
    return _compiled_flex()(*heads_first, *lists, real, sparse.scale).transpose(1, 2)


@cache
def _compiled_flex() -> Callable[..., torch.Tensor]:
    """FlexAttention over block lists. Uncompiled it would compute every score, so it is compiled wherever it runs."""
    import torch
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    # Only backward needs the lists the other way round; older versions of torch always make them.
    parameters = inspect.signature(BlockMask.from_kv_blocks).parameters
    options: dict[str, Any] = {"compute_q_blocks": False} if "compute_q_blocks" in parameters else {}

    def attention(
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
        def is_token(batch: Any, head: Any, query_index: Any, key_index: Any) -> torch.Tensor:
            return real[key_index]

        mask = BlockMask.from_kv_blocks(
            partial_count,
            partial,
            full_count,
            full,
            BLOCK_SIZE=BLOCK,
            mask_mod=is_token,
            seq_lengths=(query.shape[2], key.shape[2]),
            **options,
        )
        result = flex_attention(query, key, value, block_mask=mask, scale=scale)
        assert isinstance(result, torch.Tensor)
        return result

    compiled = torch.compile(attention, fullgraph=True, dynamic=True)
    lock = threading.Lock()

    def run(*arguments: Any) -> torch.Tensor:
        # Head counts, head sizes and dtypes are compiled for one by one: more than the eight that torch allows.
        with lock, torch._dynamo.config.patch(recompile_limit=64), torch.no_grad():
            return compiled(*arguments)

    return run
