"""The order of the video tokens that a backend asks for, as an order of all tokens of the stream that they stand in."""

from __future__ import annotations

import torch

from fastvideo_core.contract.attention import TokenLayout, TokenOrder


def in_stream(order: TokenOrder, layout: TokenLayout) -> TokenOrder:
    """The order with the tokens before and behind those of the grid, which stay where they are."""
    before, after = layout.text_before, layout.text_after
    if not before and not after:
        return order
    gather = _with(order.gather, before, after, len(order.scatter))
    return TokenOrder(gather, _with(order.scatter, before, after, len(order.gather)))


def _with(places: torch.Tensor, before: int, after: int, others: int) -> torch.Tensor:
    """The places, each `before` further on, between those in front of them and those behind `others` tokens."""
    front = torch.arange(before, device=places.device)
    behind = torch.arange(after, device=places.device) + before + others
    return torch.cat([front, places + before, behind])
