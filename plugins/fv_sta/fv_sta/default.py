"""Tile and window of a run that is given neither: they reach as far as the published ones, with the least work.

The published tile is 6x8x8 and its smallest window 3x3x3 tiles (Zhang et al. 2025), so each token sees at least 6
frames, 8 rows and 8 columns of tokens to either side. Where 6x8x8 divides the canvas it is kept. Elsewhere it pads, and
another tile reaches as far with less work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np

from fv_sta.tiles import BLOCK, DEFAULT_TILE, Tiling, Triple, blocks_of_tiles, shapes
from fv_sta.windows import is_full, visible_on_axis

DEFAULT_WINDOW: Triple = (3, 3, 3)


@dataclass(frozen=True)
class Default:
    """A tile, and the window that goes with it, counted in tiles."""

    tile: Triple
    window: Triple


@lru_cache(maxsize=32)
def default_for(grid: Triple) -> Default:
    """What a canvas is computed with where nothing is set."""
    usual = Default(DEFAULT_TILE, window_that_reaches(grid, DEFAULT_TILE))
    tiling = Tiling(grid, DEFAULT_TILE)
    if tiling.places == tiling.tokens or is_full(usual.window, tiling.tiles):
        return usual
    candidates = [Default(tile, window_that_reaches(grid, tile)) for tile in shapes(grid)]
    size = math.prod(DEFAULT_TILE)
    return min(
        (usual, *candidates),
        key=lambda one: (pairs_of_blocks(grid, one), abs(math.prod(one.tile) - size), sum(one.tile), one.tile),
    )


def window_that_reaches(grid: Triple, tile: Triple) -> Triple:
    """The smallest window with which a tile sees as many tokens to either side as with 3x3x3 tiles of 6x8x8."""
    time, height, width = (
        min(-(-size // length), 2 * -(-reach // length) + 1)
        for size, length, reach in zip(grid, tile, DEFAULT_TILE, strict=True)
    )
    return time, height, width


def pairs_of_blocks(grid: Triple, default: Default) -> int:
    """Pairs of blocks that a head computes, counted along the axes and without making lists."""
    blocks = blocks_of_tiles(grid, default.tile)
    seen = [
        visible_on_axis(count, size).astype(np.int64) for count, size in zip(blocks.shape, default.window, strict=True)
    ]
    return int((blocks * reduce(lambda found, axis: np.tensordot(found, axis, ([0], [1])), seen, blocks)).sum())


def density(grid: Triple, default: Default) -> float:
    """The share of full attention's work, padding included."""
    return pairs_of_blocks(grid, default) * BLOCK**2 / math.prod(grid) ** 2
