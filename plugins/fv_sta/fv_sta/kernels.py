"""The kernels that can compute sliding tiles, and which of them fits."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from fastvideo_core import Probe
from fastvideo_core.kernels import Kernel, with_plain_strides
from fv_sta.tiles import BLOCK, Tiling, Triple
from fv_sta.windows import block_lists

if TYPE_CHECKING:
    import torch

FA4 = Kernel(
    "FlashAttention 4 (block-sparse)",
    distributions=("flash-attn-4",),
    modules=("flash_attn.cute",),
    function="flash_attn_func",
    generations=frozenset({9, 10, 11}),
    install="pip install --pre flash-attn-4",
)
ST_ATTN = Kernel(
    "st_attn",
    distributions=("st-attn",),
    modules=("st_attn",),
    function="sliding_tile_attention",
    generations=frozenset({9}),
    install="pip install st-attn==0.0.6",
    rebuild="pip install st-attn==0.0.6 --no-binary st-attn --no-build-isolation",
)

ST_ATTN_CANVASES: dict[Triple, str] = {(30, 48, 80): "30x48x80", (36, 48, 48): "36x48x48", (18, 48, 80): "18x48x80"}
ST_ATTN_WINDOWS: dict[Triple, frozenset[Triple]] = {
    (30, 48, 80): frozenset({(3, 3, 3), (3, 3, 5), (5, 3, 3), (5, 6, 1), (1, 6, 10), (5, 6, 10)}),
    (36, 48, 48): frozenset({(3, 3, 3)}),
    (18, 48, 80): frozenset({(3, 3, 3)}),
}
"""Windows that it is known to compute; for any other, 0.0.6 returns memory that nothing was written to."""

NAMES = ("fa4", "flex", "st_attn")
"""In the order in which they are chosen."""

SparseFunction = Callable[..., "torch.Tensor"]
"""Called with query, key, value (batch, places and text, heads, head_dim) in tile order, and a Sparse."""


@dataclass(frozen=True)
class Sparse:
    """A call's pattern: the tiling, a window for each head, text behind the video, the scale."""

    tiling: Tiling
    windows: tuple[Triple, ...]
    text_queries: int
    text_keys: int
    scale: float | None

    @property
    def ragged(self) -> bool:
        """Whether some block has padding among its places, so that a kernel must look inside of it."""
        return not bool(self.tiling.full_blocks.all())


def probe(name: str) -> Probe:
    """Whether a kernel can be used here."""
    if name == "flex":
        return _probe_flex()
    if name == "fa4":
        return FA4.probe()
    found = ST_ATTN.probe()
    return _check_st_attn(found) if found.available else found


def misfit(name: str, sparse: Sparse, head_dim: int, dtype: str, device: str) -> str | None:
    """Why a kernel cannot compute a call, or None."""
    if name == "flex":
        return None
    if device != "cuda" or dtype not in ("bfloat16", "float16"):
        return f"{name} takes bfloat16 and float16 on cuda, not {dtype} on {device}"
    if name == "fa4":
        if head_dim % 8 or not 64 <= head_dim <= 128:
            return f"fa4 takes head sizes from 64 to 128, not {head_dim}"
        return "fa4 takes canvases whose tiles are whole blocks of 128 tokens" if sparse.ragged else None
    if dtype != "bfloat16" or head_dim != 128:
        return f"st_attn takes bfloat16 and head size 128, not {dtype} and {head_dim}"
    if sparse.tiling.tile != (6, 8, 8) or sparse.tiling.grid not in ST_ATTN_CANVASES:
        return f"st_attn takes the canvases {', '.join(ST_ATTN_CANVASES.values())} in tiles of 6x8x8 alone"
    least, most = (1, 256) if sparse.tiling.grid == (30, 48, 80) else (0, 0)
    if not least <= sparse.text_keys <= most:
        needs = "with 1 to 256 tokens of text" if most else "without text"
        return f"st_attn takes the canvas {ST_ATTN_CANVASES[sparse.tiling.grid]} {needs}, not with {sparse.text_keys}"
    wrong = set(sparse.windows) - ST_ATTN_WINDOWS[sparse.tiling.grid]
    return f"st_attn does not compute the windows {sorted(wrong)} on this canvas" if wrong else None


def load(name: str) -> SparseFunction:
    """The function of a kernel."""
    if name == "fa4":
        return _load_fa4()
    return _load_st_attn() if name == "st_attn" else _flex


def _probe_flex() -> Probe:
    import torch

    try:
        from torch.nn.attention import flex_attention
    except ImportError as error:
        return Probe(False, reason=f"torch {torch.__version__} has no FlexAttention: {error}", remedy="Upgrade torch")
    return Probe(True, kernel=f"{flex_attention.__name__}.flex_attention", version=str(torch.__version__))


def _check_st_attn(found: Probe) -> Probe:
    """It reports an extension that failed to load by a missing function only."""
    import st_attn

    version = found.version
    if getattr(st_attn, "sta_fwd", None) is None:
        reason = f"st_attn {version} is installed, but its CUDA extension did not load"
        remedy = "Install it for this torch: pip install st-attn==0.0.6"
        return Probe(False, reason=reason, remedy=remedy, broken=True)
    if version != "0.0.6":
        reason = f"st_attn {version} is installed; 0.0.6 is the version whose faults are known and kept away from"
        return Probe(False, reason=reason, remedy="Install it: pip install st-attn==0.0.6")
    return found


@lru_cache(maxsize=256)
def tensors_for(tiling: Tiling, window: Triple, text_keys: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Block lists of the video's queries, on the device, twice: of whole blocks, of blocks with padding.

    Counts (1, 1, query blocks) and indices (1, 1, query blocks, longest row). They are kept for every window that
    occurs, so without what no row uses.
    """
    import torch

    lists = block_lists(tiling, window, 0, text_keys)
    pairs = ((lists.full_count, lists.full), (lists.partial_count, lists.partial))
    parts = [part for count, rows in pairs for part in (count, rows[:, : max(1, int(count.max()))].copy())]
    return tuple(torch.from_numpy(part).to(device)[None, None] for part in parts)


@lru_cache(maxsize=64)
def work_of(tiling: Tiling, window: Triple, text_queries: int, text_keys: int) -> int:
    """Pairs of blocks that are computed for a head."""
    return block_lists(tiling, window, text_queries, text_keys).work


def _lists_per_head(sparse: Sparse, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Lists for all heads at once, as wide as there are blocks of keys: (1, 1 or heads, …)."""
    import torch

    distinct = tuple(dict.fromkeys(sparse.windows))
    lists = [_with_text(sparse, tensors_for(sparse.tiling, w, sparse.text_keys, device), device) for w in distinct]
    if len(distinct) == 1:
        return lists[0]
    number = _numbers(tuple(distinct.index(window) for window in sparse.windows), device)
    return tuple(torch.cat(parts, dim=1).index_select(1, number) for parts in zip(*lists, strict=True))


def _with_text(sparse: Sparse, lists: tuple[torch.Tensor, ...], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Lists at their whole width, with the rows of text below, which sees everything."""
    import torch

    width = -(-(sparse.tiling.places + sparse.text_keys) // BLOCK)
    rows = -(-sparse.text_queries // BLOCK)
    whole = _row_of_everything(sparse.tiling, sparse.text_keys, device)
    found = []
    for part, row in zip(lists, whole, strict=True):
        wide = part if part.ndim == 3 else torch.nn.functional.pad(part, (0, width - part.shape[-1]))
        found.append(torch.cat((wide, row.expand(-1, -1, rows, *row.shape[3:])), dim=2) if rows else wide)
    return tuple(found)


@lru_cache(maxsize=16)
def _row_of_everything(tiling: Tiling, text_keys: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    import torch

    lists = block_lists(tiling, tiling.tiles, 0, text_keys)
    parts = (lists.full_count, lists.full, lists.partial_count, lists.partial)
    return tuple(torch.from_numpy(part[:1].copy()).to(device)[None, None] for part in parts)


@lru_cache(maxsize=256)
def _numbers(values: tuple[int, ...], device: torch.device) -> torch.Tensor:
    import torch

    return torch.tensor(values, device=device)


@lru_cache(maxsize=16)
def real_places(tiling: Tiling, text_keys: int, device: torch.device) -> torch.Tensor:
    """Which keys are tokens: (places and text,), bool."""
    import torch

    real = torch.ones(tiling.places + text_keys, dtype=torch.bool)
    real[: tiling.places] = torch.from_numpy(tiling.real)
    return real.to(device)


def _flex(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sparse: Sparse) -> torch.Tensor:
    lists = _lists_per_head(sparse, query.device)
    real = real_places(sparse.tiling, sparse.text_keys, query.device)
    heads_first = (x.transpose(1, 2) for x in (query, key, value))
    return _compiled_flex()(*heads_first, *lists, real, sparse.scale).transpose(1, 2)


@cache
def _compiled_flex() -> Callable[..., torch.Tensor]:
    """FlexAttention over block lists. Uncompiled it would compute every score, so it is compiled wherever it runs."""
    import torch
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

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
            compute_q_blocks=False,
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


def dense(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None) -> torch.Tensor:
    """Full attention, (batch, tokens, heads, head_dim): by FlashAttention 4 where that is there, else torch's own."""
    from torch.nn.functional import scaled_dot_product_attention

    if query.device.type == "cuda" and query.element_size() == 2 and _dense_fa4() is not None:
        out = _dense_fa4()(*map(with_plain_strides, (query, key, value)), softmax_scale=scale)
        result: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return result
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    return scaled_dot_product_attention(query, key, value, scale=scale).transpose(1, 2)


@cache
def _dense_fa4() -> Any:
    return FA4.load() if FA4.probe().available else None


def _load_fa4() -> SparseFunction:
    from flash_attn.cute.block_sparsity import BlockSparseTensorsTorch

    function = FA4.load()

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sparse: Sparse) -> torch.Tensor:
        full_count, full, partial_count, partial = _lists_per_head(sparse, query.device)
        query, key, value = map(with_plain_strides, (query, key, value))
        lists = BlockSparseTensorsTorch(
            mask_block_cnt=partial_count,
            mask_block_idx=partial,
            full_block_cnt=full_count,
            full_block_idx=full,
            block_size=(BLOCK, BLOCK),
        )
        out = function(query, key, value, softmax_scale=sparse.scale, causal=False, block_sparse_tensors=lists)
        result: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return result

    return attend


def _load_st_attn() -> SparseFunction:
    function = ST_ATTN.load()

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sparse: Sparse) -> torch.Tensor:
        import torch

        if sparse.scale is not None:
            query = query * (sparse.scale * math.sqrt(query.shape[-1]))
        padding = query.shape[1] - key.shape[1]  # text tokens that are not real; nothing looks at what they get
        heads_first = [x[:, : key.shape[1]].transpose(1, 2).contiguous() for x in (query, key, value)]
        windows = [list(window) for window in sparse.windows]
        shape = ST_ATTN_CANVASES[sparse.tiling.grid]
        result: torch.Tensor = function(*heads_first, windows, sparse.text_keys, bool(sparse.text_keys), shape)
        return torch.nn.functional.pad(result.transpose(1, 2), (0, 0, 0, 0, 0, padding))

    return attend
