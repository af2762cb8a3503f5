"""Hold the order of tokens that a backend asks for against the contract: a wrong one would mix up the video."""

from __future__ import annotations

from math import prod

import torch

from fastvideo_core.contract.attention import TokenLayout, TokenOrder
from fastvideo_core.errors import BackendError

_WHOLE = (torch.int64, torch.int32)


class OrderCheck:
    """Checks the orders of one backend in one run: the form of each, the values of the first one of each layout.

    Looking at values waits for the device, so it is done once for a grid.
    """

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._seen: set[tuple[int, int, int]] = set()

    def __call__(self, order: object, layout: TokenLayout) -> TokenOrder | None:
        """The order, if it is one.

        Raises:
            BackendError: with what is wrong with it.
        """
        if order is None:
            return None
        problem = self._form(order, prod(layout.grid))
        if not problem and isinstance(order, TokenOrder) and layout.grid not in self._seen:
            problem = _values(order)
            self._seen.add(layout.grid)
        if problem or not isinstance(order, TokenOrder):
            raise BackendError(f"{self._backend}: {problem}; report it to the plugin's author")
        return order

    def _form(self, order: object, tokens: int) -> str:
        if not isinstance(order, TokenOrder):
            return f"its token_order is of type {type(order).__name__}, it must be TokenOrder or None"
        for name, places in (("gather", order.gather), ("scatter", order.scatter)):
            if not isinstance(places, torch.Tensor) or places.ndim != 1 or places.dtype not in _WHOLE:
                return f"{name} of its token_order must be an int64 tensor with one axis"
        if len(order.scatter) != tokens or order.padding < 0:
            have = f"{len(order.scatter)} tokens in {len(order.gather)} places"
            return f"its token_order has {have}, the video has {tokens} tokens"
        return ""


def _values(order: TokenOrder) -> str:
    gather, scatter = order.gather.cpu(), order.scatter.cpu()
    for name, places, limit in (("gather", gather, len(scatter)), ("scatter", scatter, len(gather))):
        if int(places.min()) < 0 or int(places.max()) >= limit:
            return f"{name} of its token_order goes from {int(places.min())} to {int(places.max())}, of {limit} places"
    if not torch.equal(gather[scatter].long(), torch.arange(len(scatter))):
        return "gather[scatter] of its token_order is not every token in turn, so tokens would change places"
    return ""
