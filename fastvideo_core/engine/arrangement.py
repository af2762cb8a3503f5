"""How the video tokens lie within the block stack: in another order, with padding, or this process's share of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastvideo_core.contract.attention import TokenOrder
from fastvideo_core.contract.model import BlockStack

if TYPE_CHECKING:
    import torch

    from fastvideo_core.engine.parallel.share import Share


class Arrangement:
    """The arrangement of one pass.

    Args:
        order: the order that the backend asked for; None: the model's own.
        share: what of the tokens is this process's; None: all.
    """

    def __init__(self, stack: BlockStack, order: TokenOrder | None, share: Share | None) -> None:
        self._stack, self._order, self._share = stack, order, share
        self._gather = None
        if order is not None:
            self._gather = order.gather if share is None else share.own_tokens(order.gather, 0)
        self._is_arranged = False
        self._batch = 0
        self._rotary: tuple[Any, Any] | None = None

    def arranged(self, args: tuple[Any, ...]) -> list[Any]:
        """A block's arguments, of which the first may be arranged already, since a block returned it."""
        stack, changed = self._stack, list(args)
        if not self._is_arranged:
            self._batch = changed[0].shape[0]
            changed[0] = self._entries(self._tokens(changed[0], 1))
            self._is_arranged = True
        modulation = changed[stack.modulation]
        if modulation.ndim == stack.modulation_per_token and modulation.shape[1] > 1:
            changed[stack.modulation] = self._tokens(modulation, 1)
        changed[stack.rotary] = self._arranged_rotary(changed[stack.rotary])
        if stack.leading is not None and len(changed) > stack.leading:
            changed[stack.leading] = self._own_leading(changed[stack.leading])
        for place in range(1, len(changed)):
            changed[place] = self._entries(changed[place])
        return changed

    def restored(self, result: Any) -> Any:
        """What a block returned as the model knows it."""
        self._is_arranged = False
        hidden, *others = result if isinstance(result, tuple) else (result,)
        if self._share is not None:
            hidden = self._share.all_tokens(hidden, self._batch)
            others[:1] = [self._share.all_entries(text, self._batch) for text in others[:1]]
        if self._order is not None:
            hidden = hidden.index_select(1, self._order.scatter)
        return (hidden, *others) if isinstance(result, tuple) else hidden

    def _tokens(self, tensor: torch.Tensor, axis: int) -> torch.Tensor:
        if self._gather is not None:
            return tensor.index_select(axis, self._gather)
        return tensor if self._share is None else self._share.own_tokens(tensor, axis)

    def _entries(self, thing: Any) -> Any:
        return thing if self._share is None else self._share.own_entries(thing, self._batch)

    def _arranged_rotary(self, rotary: tuple[torch.Tensor, ...] | None) -> tuple[torch.Tensor, ...] | None:
        """The rotary embedding: made at the first block, used by all."""
        if rotary is None:
            return None
        if self._rotary is None or self._rotary[0] is not rotary:
            self._rotary = (rotary, tuple(self._tokens(part, self._stack.rotary_axis) for part in rotary))
        arranged: tuple[torch.Tensor, ...] = self._rotary[1]
        return arranged

    def _own_leading(self, count: Any) -> Any:
        """How many of its tokens are among the video's first `count`."""
        if self._share is None or self._order is not None or not isinstance(count, int):
            return count
        start, stop = self._share.sequence.bounds(self._share.places)
        return min(max(count - start, 0), stop - start)
