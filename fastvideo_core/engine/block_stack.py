"""Stand around the repeated blocks of a transformer: a gate that may leave them out, and an arrangement of the tokens.

The block lists are replaced by lists of the same blocks under the same names; only what iterating them in a pass
yields differs. From the outside in: the gate, the arrangement (an order of the tokens, a process's share of them), the
blocks. So a step that is left out costs no change of order and sends nothing, but for the first and last blocks that a
policy always computes; and a policy sees the whole video, however many processes share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch

from fastvideo_core.contract.model import BlockStack
from fastvideo_core.engine.arrangement import Arrangement
from fastvideo_core.engine.attention.operator import TRACED
from fastvideo_core.engine.between import one_for_each, stand_in
from fastvideo_core.engine.forward_pass import BarePass, ForwardPass, current_pass
from fastvideo_core.engine.layers import in_order_of_parameters


def install(transformer: torch.nn.Module, stack: BlockStack, undo: ExitStack) -> Stack:
    """Have what the pass under way wants happen around the transformer's blocks, until `undo` is closed."""
    around = Stack(stack)
    first = 0
    for name in stack.lists:
        blocks = transformer.get_submodule(name)
        assert isinstance(blocks, torch.nn.ModuleList)
        undo.callback(transformer._modules.__setitem__, name, blocks)
        transformer._modules[name] = AttachedBlocks(blocks, name, first, around)
        first += len(blocks)
    around.size = first
    return around


class Stack:
    """What the lists of one transformer share."""

    def __init__(self, stack: BlockStack) -> None:
        self.described = stack
        self.size = 0
        """How many blocks there are in all lists."""
        self.steered = False
        """Whether more than the blocks themselves runs in the pass that is under way.

        Compiled code asks this, not the pass: it is the one thing about a pass that a graph of a whole transformer
        may depend on.
        """


class AttachedBlocks(torch.nn.ModuleList):
    """The same blocks in one dictionary with the list that it stands in for, so that changes are made to both.

    Outside of a pass it behaves as that list: slices, copies and pickles of it are plain lists.
    """

    def __init__(self, blocks: torch.nn.ModuleList, name: str, first: int, stack: Stack) -> None:
        super().__init__()
        self.__dict__["_modules"] = blocks._modules
        lists = stack.described.lists
        self._first, self._stack = first, stack
        self._is_last = name == lists[-1]

    def __iter__(self) -> Iterator[Any]:
        if torch.compiler.is_compiling() and not self._stack.steered:
            return self._traced()
        found: Iterator[Any] = self._in_pass()
        return found

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return torch.nn.ModuleList(list(self._modules.values())[index])
        return super().__getitem__(index)

    def __reduce__(self) -> Any:
        return torch.nn.ModuleList, (), self._plain_state()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()

    def _plain_state(self) -> dict[str, Any]:
        own = {"_first", "_stack", "_is_last"}
        return {name: value for name, value in vars(self).items() if name not in own}

    def _get_name(self) -> str:
        return torch.nn.ModuleList.__name__

    def _traced(self) -> Iterator[Any]:
        """For a graph of the whole transformer, which knows each block's number as a constant."""
        for number, block in enumerate(self._modules.values(), self._first):
            yield partial(_numbered, number, block)

    # Policies decide here, from tensors' values and lists that grow: nothing to trace.
    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch leaves it untyped
    def _in_pass(self) -> Iterator[Any]:
        current = current_pass()
        return iter(self._modules.values()) if current is None else self._of_pass(current)

    def _of_pass(self, current: ForwardPass | BarePass) -> Iterator[Any]:
        around = self._around(current)
        described, total = self._stack.described, self._stack.size
        if current.gate is None or not (described.adds_between or described.counted):
            return around
        blocks = list(self._modules.values())
        return one_for_each(blocks, self._first, total, around, current, described.returns_two)

    def _around(self, current: ForwardPass | BarePass) -> Iterator[Any]:
        """The blocks, with what the pass wants to happen before, between and behind them."""
        blocks = list(enumerate(self._modules.values(), self._first))
        gate, total = current.gate, self._stack.size
        start, stop = (gate.first_blocks, total - gate.last_blocks) if gate else (0, total)
        for number, block in blocks:
            if gate is not None and number == 0:
                yield stand_in(block, partial(gate.enter, block))
            if gate is not None and number == start > 0:
                yield stand_in(block, gate.after_first)
            if gate is not None and number == stop and not gate.skips:
                yield stand_in(block, gate.leave)
            if gate is None or not gate.skips or not start <= number < stop:
                current.enter_block(number)
                yield self._arranged(block, current, leaves=number + 1 in (start, stop, total))
        current.leave_blocks()
        if gate is not None and self._is_last and stop == total and not gate.skips:
            yield stand_in(blocks[-1][1], gate.leave)

    def _arranged(self, block: Any, current: ForwardPass | BarePass, leaves: bool) -> Any:
        """The block as the pass calls it; where it `leaves`, what it returns is as the model knows it."""
        if current.arrangement is None:
            return block
        return _arranged(block, current.arrangement, leaves)


def _numbered(number: int, block: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call a block with its number told: when it is called, since an enumerated list is traced to its end before."""
    TRACED.block = number
    result = block(*args, **kwargs)
    TRACED.block = -1
    return result


def _arranged(block: torch.nn.Module, arrangement: Arrangement, leaves: bool) -> Callable[..., Any]:
    """A call of the block with all that has video tokens arranged."""

    def call(*args: Any, **kwargs: Any) -> Any:
        result = block(*arrangement.arranged(in_order_of_parameters(block, args, kwargs)))
        return arrangement.restored(result) if leaves else result

    return call
