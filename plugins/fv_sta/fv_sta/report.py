"""What a table of windows costs, in numbers and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastvideo_core import written_whole
from fv_sta.sparse import cost_of
from fv_sta.strategy import Table
from fv_sta.tiles import Tiling

_CELL = 12


def share_of_work(table: Table, tiling: Tiling) -> NDArray[np.float64]:
    """What each step and layer computes of full attention's work, (steps, layers)."""
    costs = {window: cost_of(tiling, window) for window in table.distinct()}
    work = np.ones((table.steps, table.layers))
    for step in range(table.dense_steps, table.steps):
        for layer in range(table.layers):
            windows = table.windows(step, layer, table.steps, table.heads) or ()
            work[step, layer] = sum(costs[window] for window in windows) / table.heads
    return work


def draw_heat_map(work: NDArray[np.float64], path: Path, overwrite: bool = False) -> None:
    """A PNG: steps to the right, layers down; dark is little work, bright is full attention."""
    from PIL import Image

    share = work.T[..., None]
    dark, middle, bright = (np.array(colour, dtype=float) for colour in ((24, 15, 61), (182, 54, 121), (252, 253, 191)))
    low, high = dark + (middle - dark) * 2 * share, middle + (bright - middle) * (2 * share - 1)
    pixels = np.where(share < 0.5, low, high).round().astype(np.uint8)
    image = Image.fromarray(pixels.repeat(_CELL, axis=0).repeat(_CELL, axis=1))
    with written_whole(path, overwrite) as temporary:
        image.save(temporary, format="PNG")
