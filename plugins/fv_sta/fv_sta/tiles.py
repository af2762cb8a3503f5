"""Cut a grid of video tokens into tiles (Zhang et al. 2025, Sliding Tile Attention), whatever its size.

Tokens of a tile stand together. A tile at the border may have fewer tokens than the others; it is filled up to the next
multiple of a block of 128, no further, so that no block of queries or keys belongs to two tiles.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from fastvideo_core.errors import InputError

BLOCK = 128
"""Tokens that a kernel treats together."""

DEFAULT_TILE = (6, 8, 8)

Triple = tuple[int, int, int]
"""Along time, height and width."""


def by(triple: Triple) -> str:
    """As messages show it: 6x8x8."""
    return "x".join(map(str, triple))


def parse_triple(text: str, name: str, form: str, separators: str = ",") -> Triple:
    """Three positive whole numbers from text.

    Raises:
        InputError: it is something else; the message ends in `form`.
    """
    parts = re.split(f"[{separators}]", text)
    if len(parts) != 3 or not all(_is_size(part.strip()) for part in parts):
        raise InputError(f"{name} is {text!r}, it must be three whole numbers, 1 or more{form}")
    time, height, width = map(int, parts)
    return time, height, width


def _is_size(text: str) -> bool:
    return text.isdecimal() and len(text) < 7 and int(text) > 0


@dataclass(frozen=True)
class Tiling:
    """A grid of tokens and the tile that it is cut into; both along time, height and width."""

    grid: Triple
    tile: Triple

    @cached_property
    def tiles(self) -> Triple:
        """Tiles along each axis."""
        time, height, width = (-(-size // tile) for size, tile in zip(self.grid, self.tile, strict=True))
        return time, height, width

    @cached_property
    def tokens(self) -> int:
        return math.prod(self.grid)

    @cached_property
    def places(self) -> int:
        """Tokens and padding."""
        return int(self._blocks_per_tile.sum()) * BLOCK

    @cached_property
    def scatter(self) -> NDArray[np.int64]:
        """For each token, with width fastest, its place in tile order."""
        tile, inside = self._tile_of_token
        order = np.argsort(tile * math.prod(self.tile) + inside, kind="stable")
        starts = np.concatenate(([0], np.cumsum(self._blocks_per_tile)[:-1])) * BLOCK
        first = np.concatenate(([0], np.cumsum(self._tokens_per_tile)[:-1]))
        scatter = np.empty(self.tokens, dtype=np.int64)
        scatter[order] = starts[tile[order]] + np.arange(self.tokens) - first[tile[order]]
        return scatter

    @cached_property
    def gather(self) -> NDArray[np.int64]:
        """For each place the token that stands there; token 0 where there is padding."""
        gather = np.zeros(self.places, dtype=np.int64)
        gather[self.scatter] = np.arange(self.tokens)
        return gather

    @cached_property
    def real(self) -> NDArray[np.bool_]:
        """For each place whether it is a token."""
        real = np.zeros(self.places, dtype=np.bool_)
        real[self.scatter] = True
        return real

    @cached_property
    def tile_of_block(self) -> NDArray[np.int64]:
        """For each block of 128 places the tile that it is a part of."""
        return np.repeat(np.arange(len(self._blocks_per_tile)), self._blocks_per_tile)

    @cached_property
    def full_blocks(self) -> NDArray[np.bool_]:
        """For each block whether all of its places are tokens."""
        full: NDArray[np.bool_] = np.all(self.real.reshape(-1, BLOCK), axis=1)
        return full

    @cached_property
    def _tile_of_token(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        coordinates = np.indices(self.grid).reshape(3, -1)
        size = np.array(self.tile)[:, None]
        tile, inside = coordinates // size, coordinates % size
        return _flat(tile, self.tiles), _flat(inside, self.tile)

    @cached_property
    def _tokens_per_tile(self) -> NDArray[np.int64]:
        return np.bincount(self._tile_of_token[0], minlength=math.prod(self.tiles))

    @cached_property
    def _blocks_per_tile(self) -> NDArray[np.int64]:
        return -(-self._tokens_per_tile // BLOCK)


def _flat(coordinates: NDArray[np.int64], sizes: Triple) -> NDArray[np.int64]:
    time, height, width = coordinates
    flat: NDArray[np.int64] = (time * sizes[1] + height) * sizes[2] + width
    return flat


@lru_cache(maxsize=32)
def tiling_for(grid: Triple, tile: Triple | None) -> Tiling:
    """The tiling of a grid; without a tile, by the one that pads least.

    Among those that pad alike, the one whose size is nearest to the default's, then the one nearest to a cube.
    """
    if tile is not None:
        return Tiling(grid, tile)
    tilings = [Tiling(grid, shape) for shape in shapes(grid)]
    usual = math.prod(DEFAULT_TILE)
    return min(tilings, key=lambda t: (_padded(t), abs(math.prod(t.tile) - usual), sum(t.tile), t.tile))


def shapes(grid: Triple) -> list[Triple]:
    """Tiles of one, two, three or four blocks that are not longer than the grid needs."""
    sides = [range(1, 2 * size + 1) for size in grid]
    found = [
        (time, height, blocks * BLOCK // (time * height))
        for blocks in (1, 2, 3, 4)
        for time, height in product(sides[0], sides[1])
        if blocks * BLOCK % (time * height) == 0 and blocks * BLOCK // (time * height) in sides[2]
    ]
    return found or [DEFAULT_TILE]


def _padded(tiling: Tiling) -> int:
    """Places of the tiling, counted without making it."""
    return int(blocks_of_tiles(tiling.grid, tiling.tile).sum()) * BLOCK


def blocks_of_tiles(grid: Triple, tile: Triple) -> NDArray[np.int64]:
    """Blocks of each tile, (tiles along time, height, width)."""
    time, height, width = (
        np.minimum(length, size - np.arange(0, size, length)) for size, length in zip(grid, tile, strict=True)
    )
    blocks: NDArray[np.int64] = -(-np.einsum("a,b,c->abc", time, height, width) // BLOCK)
    return blocks


def check_tile(tile: Triple, origin: str) -> Triple:
    """The tile, if kernels can work with it.

    Raises:
        InputError: it is not positive, or its tokens are not a multiple of 128.
    """
    volume = math.prod(tile)
    if min(tile) < 1 or volume % BLOCK:
        raise InputError(
            f"{origin + ': ' if origin else ''}a tile of {by(tile)} has {volume} tokens; it needs a multiple of "
            f"{BLOCK}, such as 6x8x8, 4x8x8, 2x8x8 or 3x32x4, or 'auto'"
        )
    return tile
