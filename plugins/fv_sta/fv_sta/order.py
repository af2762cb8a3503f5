"""Bring tokens into tile order and back, on any device."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from fastvideo_core import TokenOrder
from fv_sta.sparse import real_places
from fv_sta.tiles import Tiling

if TYPE_CHECKING:
    import torch


@lru_cache(maxsize=16)
def tile_order(tiling: Tiling, device: torch.device) -> TokenOrder:
    """The order in which tokens of a tile stand together."""
    import torch

    return TokenOrder(torch.from_numpy(tiling.gather).to(device), torch.from_numpy(tiling.scatter).to(device))


def reorder(tensor: torch.Tensor, index: torch.Tensor, video: int) -> torch.Tensor:
    """The video tokens by index, what is behind them as it is."""
    import torch

    ordered = tensor[:, :video].index_select(1, index)
    return ordered if tensor.shape[1] == video else torch.cat((ordered, tensor[:, video:]), dim=1)


def without_padding(tensor: torch.Tensor, tiling: Tiling, text: int) -> torch.Tensor:
    """Keys or values in tile order, less the places that are no tokens; `text` tokens stand behind them."""
    if tiling.places == tiling.tokens:
        return tensor
    return tensor.index_select(1, _real_keys(tiling, text, tensor.device))


@lru_cache(maxsize=16)
def _real_keys(tiling: Tiling, text: int, device: torch.device) -> torch.Tensor:
    return real_places(tiling, text, device).nonzero()[:, 0]
