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

    Attributes:
        is_arranged: whether the video tokens are as the blocks have them where the pass stands.
    """

    def __init__(self, stack: BlockStack, order: TokenOrder | None, share: Share | None) -> None:
        self.order, self.is_arranged = order, False
        self._stack, self._share = stack, share
        self._gather = None
        if order is not None:
            self._gather = order.gather if share is None else share.own_tokens(order.gather, 0)
        self._batch = 0
        self._rotary: dict[int, tuple[Any, Any]] = {}

    def arranged(self, args: tuple[Any, ...]) -> list[Any]:
        """A block's arguments, of which the first may be arranged already, since a block returned it."""
        stack, changed = self._stack, list(args)
        if not self.is_arranged:
            self._batch = changed[0].shape[0]
            changed[0] = self._entries(self.tokens(changed[0]))
            self.is_arranged = True
        for position in (stack.modulation, *stack.more_modulation):
            if position < len(changed):  # a block's last arguments may be left out
                changed[position] = self.modulation(changed[position])
        for position in (stack.rotary, *stack.more_rotary):
            changed[position] = self.rotary(changed[position])
        if stack.video_tokens is not None and self.order is not None:
            changed[stack.video_tokens] += self.order.padding
        if stack.leading is not None and len(changed) > stack.leading:
            changed[stack.leading] = self._own_leading(changed[stack.leading])
        for place in range(1, len(changed)):
            if not _looks_up(changed[place]):  # whose tables have no batch
                changed[place] = self._entries(changed[place])
        return changed

    def restored(self, result: Any) -> Any:
        """What a block returned as the model knows it."""
        self.is_arranged = False
        hidden, *others = result if isinstance(result, tuple) else (result,)
        if self._share is not None:
            others[:1] = [self._share.all_entries(text, self._batch) for text in others[:1]]
        hidden = self.whole(hidden)
        return (hidden, *others) if isinstance(result, tuple) else hidden

    def whole(self, own: torch.Tensor) -> torch.Tensor:
        """All video tokens, (batch, tokens, …), in the model's own order, of those that the blocks have here."""
        if self._share is not None:
            own = self._share.all_tokens(own, self._batch)
        return self.in_own_order(own)

    def in_own_order(self, tokens: torch.Tensor) -> torch.Tensor:
        """All video tokens, (batch, tokens, …), in the model's own order, of those in the other."""
        return tokens if self.order is None else tokens.index_select(1, self.order.scatter)

    def tokens(self, whole: torch.Tensor, axis: int = 1) -> torch.Tensor:
        """What has all video tokens on an axis, as the blocks have them."""
        if self._gather is not None:
            return whole.index_select(axis, self._gather)
        return whole if self._share is None else self._share.own_tokens(whole, axis)

    def modulation(self, whole: torch.Tensor | None) -> torch.Tensor | None:
        """The modulation of a block, where it differs from token to token."""
        axis = self._stack.modulation_axis
        if whole is None or whole.ndim != self._stack.modulation_per_token or whole.shape[axis] == 1:
            return whole
        return self.tokens(whole, axis)

    def rotary(self, whole: Any) -> Any:
        """A rotary embedding: made at the first block, used by all."""
        if whole is None:
            return None
        if id(whole) not in self._rotary:  # kept with its own, so that the id stays its
            axis = self._stack.rotary_axis
            self._rotary[id(whole)] = (whole, self._arranged_rotary(whole, axis))
        return self._rotary[id(whole)][1]

    def _arranged_rotary(self, whole: Any, axis: int) -> Any:
        if _looks_up(whole):
            tables, places = whole
            return tables, self._arranged_rotary(places, axis)
        if isinstance(whole, tuple):
            return tuple(self.tokens(part, axis) for part in whole)
        return self.tokens(whole, axis)

    def _entries(self, thing: Any) -> Any:
        return thing if self._share is None else self._share.own_entries(thing, self._batch)

    def _own_leading(self, count: Any) -> Any:
        """How many of its tokens are among the video's first `count`."""
        if self._share is None or self.order is not None or not isinstance(count, int):
            return count
        start, stop = self._share.sequence.bounds(self._share.places)
        return min(max(count - start, 0), stop - start)


def _looks_up(rotary: Any) -> bool:
    """Whether it is a pair of tables, and of the tokens' places in them."""
    return isinstance(rotary, tuple) and len(rotary) == 2 and isinstance(rotary[0], tuple)
