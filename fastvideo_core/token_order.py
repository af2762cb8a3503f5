"""Bring the video tokens into a backend's order once per forward pass, not once per layer and tensor."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import torch

from fastvideo_core.attention.backend import TokenOrder
from fastvideo_core.models.family import BlockStack

CurrentOrder = Callable[[], TokenOrder | None]
"""The order of the forward pass that is under way; None where the tokens stay as they are."""


def install(transformer: torch.nn.Module, stack: BlockStack, current: CurrentOrder, undo: ExitStack) -> None:
    """Have the transformer's blocks see the video tokens in the current order, until `undo` is closed.

    The lists are replaced by lists of the same blocks under the same names: only what iterating them yields differs.
    """
    rotary = _RotaryCache(stack.rotary_axis)
    for name in stack.lists:
        blocks = transformer.get_submodule(name)
        assert isinstance(blocks, torch.nn.ModuleList)
        undo.callback(transformer._modules.__setitem__, name, blocks)
        transformer._modules[name] = _OrderedList(blocks, name, stack, current, rotary)


class _OrderedList(torch.nn.ModuleList):
    """The same blocks; iterating during an ordered forward pass yields them with the change of order around them."""

    def __init__(
        self, blocks: Iterable[torch.nn.Module], name: str, stack: BlockStack, current: CurrentOrder, rotary: Any
    ) -> None:
        super().__init__(blocks)
        self._is_first, self._is_last = name == stack.lists[0], name == stack.lists[-1]
        self._stack, self._current, self._rotary = stack, current, rotary

    def __iter__(self) -> Iterator[Any]:
        order = self._current()
        blocks = list(super().__iter__())
        if order is None:
            yield from blocks
            return
        for number, block in enumerate(blocks):
            enters = self._is_first and number == 0
            leaves = self._is_last and number == len(blocks) - 1
            yield _ordered(block, self._stack, order, self._rotary, enters, leaves)


class _RotaryCache:
    """The rotary embedding in the current order: made at the first block, used by all."""

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._made: tuple[Any, TokenOrder, tuple[torch.Tensor, ...]] | None = None

    def __call__(self, rotary: tuple[torch.Tensor, ...], order: TokenOrder) -> tuple[torch.Tensor, ...]:
        if self._made is None or self._made[0] is not rotary or self._made[1] is not order:
            self._made = (rotary, order, tuple(part.index_select(self._axis, order.gather) for part in rotary))
        return self._made[2]


def _ordered(
    block: torch.nn.Module, stack: BlockStack, order: TokenOrder, rotary: _RotaryCache, enters: bool, leaves: bool
) -> Callable[..., Any]:
    """A call of the block with all that has video tokens in the order."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            args = inspect.signature(type(block).forward).bind(block, *args, **kwargs).args[1:]
        changed = list(args)
        if enters:
            changed[0] = changed[0].index_select(1, order.gather)
        if changed[stack.modulation].ndim == 4:
            changed[stack.modulation] = changed[stack.modulation].index_select(1, order.gather)
        changed[stack.rotary] = rotary(changed[stack.rotary], order)
        result = block(*changed)
        if not leaves:
            return result
        if isinstance(result, tuple):
            return result[0].index_select(1, order.scatter), *result[1:]
        return result.index_select(1, order.scatter)

    return call
