"""Stand around the repeated blocks of a transformer: a gate that may leave them out, and a change of token order.

The block lists are replaced by lists of the same blocks under the same names; only what iterating them yields differs.
From the outside in: the gate, the token order, the blocks. So a step that is left out costs no change of order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import torch

from fastvideo_core.contract.attention import TokenOrder
from fastvideo_core.contract.model import BlockStack
from fastvideo_core.engine.caching.gate import Passage


class Forward(Protocol):
    """What is to happen around the blocks of the forward pass that is under way."""

    @property
    def order(self) -> TokenOrder | None:
        """The order that the video tokens are to be in; None: as they are."""

    @property
    def passage(self) -> Passage | None:
        """How the pass goes through the caching policy; None without one."""


def install(transformer: torch.nn.Module, stack: BlockStack, forward: Forward, undo: ExitStack) -> None:
    """Have what `forward` tells happen around the transformer's blocks, until `undo` is closed."""
    entry = _Entry(stack, forward)
    for name in stack.lists:
        blocks = transformer.get_submodule(name)
        assert isinstance(blocks, torch.nn.ModuleList)
        undo.callback(transformer._modules.__setitem__, name, blocks)
        transformer._modules[name] = _Blocks(blocks, name, entry)


class _Entry:
    """What the lists of one transformer share."""

    def __init__(self, stack: BlockStack, forward: Forward) -> None:
        self.stack, self.forward = stack, forward
        self.rotary = _RotaryCache(stack.rotary_axis)
        self.in_order = False
        """Whether the tokens are in the other order where the forward pass stands."""


class _Blocks(torch.nn.ModuleList):
    """The same blocks; iterating yields them with what stands around them."""

    def __init__(self, blocks: Iterable[torch.nn.Module], name: str, entry: _Entry) -> None:
        super().__init__(blocks)
        lists = entry.stack.lists
        self._is_first, self._is_last = name == lists[0], name == lists[-1]
        self._entry = entry

    def __iter__(self) -> Iterator[Any]:
        blocks = list(super().__iter__())
        order, passage = self._entry.forward.order, self._entry.forward.passage
        if order is None and passage is None:
            yield from blocks
            return
        if self._is_first:
            self._entry.in_order = False
        if passage is not None and self._is_first:
            yield _positional(blocks[0], lambda args: passage.enter(blocks[0], args))
        if passage is not None and passage.skips:
            return
        stops = passage is not None and self._is_first and passage.decides_after_first
        for number, block in enumerate(blocks):
            after_first = stops and number == 0
            leaves = after_first or (self._is_last and number == len(blocks) - 1)
            yield block if order is None else _ordered(block, self._entry, order, leaves)
            if after_first and passage is not None:
                yield _positional(block, passage.after_first)
                if passage.skips:
                    return
        if passage is not None and self._is_last:
            yield _positional(blocks[-1], passage.leave)


def _positional(block: torch.nn.Module, function: Callable[[tuple[Any, ...]], Any]) -> Callable[..., Any]:
    """A stand-in for the block that gives its arguments to `function` in the order of the block's parameters."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(_in_order_of_parameters(block, args, kwargs))

    return call


def _in_order_of_parameters(block: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    if not kwargs:
        return args
    return inspect.signature(type(block).forward).bind(block, *args, **kwargs).args[1:]


class _RotaryCache:
    """The rotary embedding in the current order: made at the first block, used by all."""

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._made: tuple[Any, TokenOrder, tuple[torch.Tensor, ...]] | None = None

    def __call__(self, rotary: tuple[torch.Tensor, ...] | None, order: TokenOrder) -> tuple[torch.Tensor, ...] | None:
        if rotary is None:
            return None
        if self._made is None or self._made[0] is not rotary or self._made[1] is not order:
            self._made = (rotary, order, tuple(part.index_select(self._axis, order.gather) for part in rotary))
        return self._made[2]


def _ordered(block: torch.nn.Module, entry: _Entry, order: TokenOrder, leaves: bool) -> Callable[..., Any]:
    """A call of the block with all that has video tokens in the order."""
    stack = entry.stack

    def call(*args: Any, **kwargs: Any) -> Any:
        changed = list(_in_order_of_parameters(block, args, kwargs))
        if not entry.in_order:
            changed[0] = changed[0].index_select(1, order.gather)
            entry.in_order = True
        if changed[stack.modulation].ndim == 4:
            changed[stack.modulation] = changed[stack.modulation].index_select(1, order.gather)
        changed[stack.rotary] = entry.rotary(changed[stack.rotary], order)
        result = block(*changed)
        if not leaves:
            return result
        entry.in_order = False
        if isinstance(result, tuple):
            return result[0].index_select(1, order.scatter), *result[1:]
        return result.index_select(1, order.scatter)

    return call
