"""Which tiles see which: windows, and the lists of blocks that kernels take."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fv_sta.tiles import BLOCK, Tiling, Triple, by

FULL: Triple = (10**6, 10**6, 10**6)
"""A window that is full attention on every canvas."""


def visible_on_axis(tiles: int, window: int) -> NDArray[np.bool_]:
    """(query tiles, key tiles) along one axis.

    The window is centred on the query's tile, but for the borders, where it is moved inwards and stays as large. One as
    large as the axis covers it; another even one reaches as far as the next odd one.
    """
    if window >= tiles:
        return np.ones((tiles, tiles), dtype=np.bool_)
    reach = window // 2
    centre = np.clip(np.arange(tiles), reach, tiles - 1 - reach)
    seen: NDArray[np.bool_] = np.abs(centre[:, None] - np.arange(tiles)) <= reach
    return seen


def visible_tiles(tiles: Triple, window: Triple) -> NDArray[np.bool_]:
    """(query tiles, key tiles), tiles counted with width fastest."""
    time, height, width = (visible_on_axis(count, size) for count, size in zip(tiles, window, strict=True))
    count = math.prod(tiles)
    seen: NDArray[np.bool_] = np.einsum("ab,cd,ef->acebdf", time, height, width).reshape(count, count)
    return seen


def effective(window: Triple, tiles: Triple) -> Triple:
    """The window that has the same meaning: odd, or the whole axis."""
    time, height, width = (
        count if size >= count else min(count, size // 2 * 2 + 1) for size, count in zip(window, tiles, strict=True)
    )
    return time, height, width


def is_full(window: Triple, tiles: Triple) -> bool:
    """Whether every tile sees every tile."""
    return effective(window, tiles) == tiles


@dataclass(frozen=True)
class BlockLists:
    """For each block of queries the blocks of keys that it sees, whole ones and ones with padding apart.

    Attributes:
        full_count, partial_count: (query blocks,), int32.
        full, partial: (query blocks, key blocks), int32; the first `count` of a row count.
        work: pairs of blocks that are computed.
    """

    full_count: NDArray[np.int32]
    full: NDArray[np.int32]
    partial_count: NDArray[np.int32]
    partial: NDArray[np.int32]

    @property
    def work(self) -> int:
        return int(self.full_count.sum() + self.partial_count.sum())


def block_lists(tiling: Tiling, window: Triple, text_queries: int = 0, text_keys: int = 0) -> BlockLists:
    """The lists for a window, with text behind the video: video sees all text, text sees everything.

    The last block of text counts as whole: kernels themselves end where the keys end.

    Args:
        text_queries: text tokens among the queries, padding included.
        text_keys: text tokens among the keys, all of them real.
    """
    seen = visible_tiles(tiling.tiles, window)[tiling.tile_of_block][:, tiling.tile_of_block]
    full = tiling.full_blocks
    if text_keys:
        seen = np.pad(seen, ((0, 0), (0, -(-text_keys // BLOCK))), constant_values=True)
        full = np.pad(full, (0, -(-text_keys // BLOCK)), constant_values=True)
    if text_queries:
        seen = np.pad(seen, ((0, -(-text_queries // BLOCK)), (0, 0)), constant_values=True)
    return BlockLists(*_lists(seen & full), *_lists(seen & ~full))


def _lists(seen: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    count = seen.sum(axis=1, dtype=np.int32)
    listed = np.argsort(~seen, axis=1, kind="stable").astype(np.int32)
    return count, np.where(np.arange(seen.shape[1]) < count[:, None], listed, 0).astype(np.int32)


def dense_mask(tiling: Tiling, window: Triple, text_queries: int = 0, text_keys: int = 0) -> NDArray[np.bool_]:
    """What a window means, written out: (queries, keys) in the model's own token order, text behind the video."""
    tile = tiling.tile_of_block[tiling.scatter // BLOCK]
    seen = visible_tiles(tiling.tiles, window)[tile][:, tile]
    return np.pad(seen, ((0, text_queries), (0, text_keys)), constant_values=True)


def describe(window: Triple, tiles: Triple) -> str:
    """The window as it acts: 3x3x3, or 4x3x3 (acts as 5x3x3)."""
    acts = effective(window, tiles)
    if is_full(window, tiles):
        return "full"
    return by(window) if acts == window else f"{by(window)} (acts as {by(acts)})"
