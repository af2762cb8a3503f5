"""A sparse call: the tiling, the windows, and the lists of blocks that they mean, as tensors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from fv_sta.tiles import BLOCK, Tiling, Triple
from fv_sta.windows import block_lists

if TYPE_CHECKING:
    import torch


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


@cache
def work_of(tiling: Tiling, window: Triple, text_queries: int, text_keys: int) -> int:
    """Pairs of blocks that are computed for a head."""
    return block_lists(tiling, window, text_queries, text_keys).work


def cost_of(tiling: Tiling, window: Triple, text_queries: int = 0, text_keys: int = 0) -> float:
    """The share of full attention's work that a window computes, padding included; at most 1."""
    whole = (tiling.tokens + text_queries) * (tiling.tokens + text_keys)
    return min(1.0, work_of(tiling, window, text_queries, text_keys) * BLOCK**2 / whole)


def lists_per_head(sparse: Sparse, device: torch.device) -> tuple[torch.Tensor, ...]:
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


@lru_cache(maxsize=4096)
def _numbers(values: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """On the device, without waiting for it: a file may have others for each of 50 steps and 60 layers."""
    import torch

    numbers = torch.tensor(values)
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)


@lru_cache(maxsize=16)
def real_places(tiling: Tiling, text_keys: int, device: torch.device) -> torch.Tensor:
    """Which keys are tokens: (places and text,), bool."""
    import torch

    real = torch.ones(tiling.places + text_keys, dtype=torch.bool)
    real[: tiling.places] = torch.from_numpy(tiling.real)
    return real.to(device)
