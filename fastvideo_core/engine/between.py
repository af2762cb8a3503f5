"""Models that add something between their blocks: hints that other blocks made before, or what adapters return.

Such a model counts its blocks as it goes through their list, to know behind which of them it adds what. So a list in a
pass yields one callable for each block, whatever else stands around it; and where blocks are left out, what is added
between them is nothing: the residual that a policy reuses has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch

from fastvideo_core.engine.layers import in_order_of_parameters

if TYPE_CHECKING:
    from fastvideo_core.contract.model import HintBlocks
    from fastvideo_core.engine.arrangement import Arrangement
    from fastvideo_core.engine.forward_pass import ForwardPass

_MARK = "_fastvideo_stands_in"

_FRAME_ALONE: Any = torch.compiler.disable(recursive=False)  # type: ignore[no-untyped-call]  # torch leaves it so
"""Keeps out of a graph of the whole transformer what belongs to a pass; the blocks that it calls are compiled."""


def stand_in(block: torch.nn.Module, function: Callable[[tuple[Any, ...]], Any]) -> Callable[..., Any]:
    """A stand-in for the block that gives its arguments to `function` in the order of the block's parameters."""

    # Where a whole transformer is compiled: a graph would depend on all that has been decided so far.
    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch leaves it untyped
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(in_order_of_parameters(block, args, kwargs))

    setattr(call, _MARK, True)
    result: Callable[..., Any] = call
    return result


def one_for_each(
    blocks: Sequence[torch.nn.Module],
    first: int,
    total: int,
    around: Iterable[Callable[..., Any]],
    current: Any,
    returns_two: bool = False,
) -> Iterator[Callable[..., Any]]:
    """What to go through in the place of a list of blocks: as many, and where it is left, what stands behind them.

    Args:
        first: the number of the first of these blocks, of `total` in all lists.
        around: the blocks that run, with the stand-ins before, between and behind them.
        current: the pass, which has a gate.
        returns_two: whether a block returns its first two arguments as it has changed them, rather than the first.
    """
    gate, steps = current.gate, iter(around)
    start, stop = gate.first_blocks, total - gate.last_blocks
    for number, block in enumerate(blocks, first):
        if gate.skips and stop == total:  # the policy has decided, and nothing is to come
            break
        yield _place(block, steps, current, start <= number < stop, returns_two)
    current.leaves_out = True
    yield from steps


def _place(
    block: torch.nn.Module,
    steps: Iterator[Callable[..., Any]],
    current: ForwardPass,
    can_be_skipped: bool,
    returns_two: bool,
) -> Callable[..., Any]:
    """All that is to be called in the place of one block, up to the block itself, unless that is left out."""

    @_FRAME_ALONE  # type: ignore[untyped-decorator]  # torch leaves it untyped
    def call(*args: Any, **kwargs: Any) -> Any:
        args = in_order_of_parameters(block, args, kwargs)
        assert current.gate is not None
        current.leaves_out = can_be_skipped and current.gate.skips
        while not current.leaves_out:
            step = next(steps)
            result = step(*args)
            if not hasattr(step, _MARK):
                return result
            args = (*result, *args[2:]) if returns_two else (result, *args[1:])
            current.leaves_out = can_be_skipped and current.gate.skips
        return args[:2] if returns_two else args[0]

    result: Callable[..., Any] = call
    return result


class Hints:
    """The hints of one pass, each made when it is added, so that none is made in vain or in another order.

    Args:
        described: the blocks that make them.
        first: the number of the first of these blocks.
    """

    def __init__(self, described: HintBlocks, first: int, current: ForwardPass) -> None:
        self.current = current
        self._described, self._first = described, first
        self._calls: list[tuple[torch.nn.Module, tuple[Any, ...]]] = []
        self._made: dict[int, torch.Tensor] = {}
        self._next = 0
        self._video: torch.Tensor | None = None
        self._own: torch.Tensor | None = None

    def later(self, block: torch.nn.Module) -> Callable[..., tuple[Hint, Any]]:
        """A stand-in for a block, which puts its call off."""

        @_FRAME_ALONE  # type: ignore[untyped-decorator]
        def call(*args: Any, **kwargs: Any) -> tuple[Hint, Any]:
            given = in_order_of_parameters(block, args, kwargs)
            self._calls.append((block, given))
            return Hint(self, len(self._calls) - 1), given[self._described.own]

        result: Callable[..., tuple[Hint, Any]] = call
        return result

    @_FRAME_ALONE  # type: ignore[untyped-decorator]
    def hint(self, index: int) -> torch.Tensor:
        """The hint of that number, arranged as the video tokens are."""
        while self._next <= index:
            self._make_next()
        made, arrangement = self._made.pop(index), self.current.arrangement
        return made if arrangement is None or arrangement.is_arranged else arrangement.whole(made)

    @_FRAME_ALONE  # type: ignore[untyped-decorator]
    def _make_next(self) -> None:
        """Run the block that is next; what it is called with was given when its turn was in the model's forward."""
        block, given = self._calls[self._next]
        args, own, arrangement = list(given), self._described.own, self.current.arrangement
        if self._own is not None:
            args[own] = self._own
        if arrangement is not None:
            self._arrange(args, arrangement)
        self.current.enter_block(self._first + self._next)
        self._made[self._next], self._own = block(*args)
        self._next += 1

    def _arrange(self, args: list[Any], arrangement: Arrangement) -> None:
        described = self._described
        if self._video is None:  # the first: all of them are called with the same
            self._video = arrangement.tokens(args[0])
            args[described.own] = arrangement.tokens(args[described.own])
        args[0] = self._video
        args[described.modulation] = arrangement.modulation(args[described.modulation])
        args[described.rotary] = arrangement.rotary(args[described.rotary])


class Hint:
    """Stands in for a hint until it is added: `hidden + hint.to(device) * scale`."""

    def __init__(self, hints: Hints, index: int, scale: Any = None) -> None:
        self._hints, self._index, self._scale = hints, index, scale

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Itself: it comes to the device of what it is added to."""
        return self

    def __mul__(self, scale: Any) -> Hint:
        return Hint(self._hints, self._index, scale)

    @_FRAME_ALONE  # type: ignore[untyped-decorator]
    def __radd__(self, hidden: torch.Tensor) -> torch.Tensor:
        if self._hints.current.leaves_out:
            return hidden
        hint: torch.Tensor = self._hints.hint(self._index).to(hidden.device)
        return hidden + (hint if self._scale is None else hint * self._scale)


def adapted(adapter: Callable[[], torch.nn.Module], current: ForwardPass) -> Callable[..., torch.Tensor]:
    """A call of an adapter in a pass: with all video tokens as the model has them, and not where it is left out."""

    @_FRAME_ALONE  # type: ignore[untyped-decorator]
    def call(hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if current.leaves_out:
            return hidden.new_zeros(())
        arrangement = current.arrangement if current.arrangement and current.arrangement.is_arranged else None
        whole = hidden if arrangement is None else arrangement.whole(hidden)
        added: torch.Tensor = adapter()(whole, *args, **kwargs)
        return added if arrangement is None else arrangement.tokens(added)

    result: Callable[..., torch.Tensor] = call
    return result
