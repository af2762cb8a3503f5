"""A pass: one forward pass of an attached transformer. What stands around the model asks which is under way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, TypeVar

from fastvideo_core.contract.attention import Role, TokenLayout
from fastvideo_core.engine.layers import BlockCalls
from fastvideo_core.errors import BackendNotUsedError

if TYPE_CHECKING:
    import torch

    from fastvideo_core.engine.arrangement import Arrangement
    from fastvideo_core.engine.attention.route import Route
    from fastvideo_core.engine.caching.gated_pass import GatedPass
    from fastvideo_core.engine.parallel.share import Share


class BarePass:
    """A pass that belongs to no run: everything is done as diffusers would do it alone, and nothing is counted.

    Args:
        slots: for each role and layer what its processor's slot had before; None: diffusers' active backend.
    """

    arrangement = gate = None

    def __init__(
        self, blocks: tuple[BlockCalls, ...], slots: Mapping[tuple[Role, int], Any], transformer: object = None
    ) -> None:
        self.transformer = id(transformer)
        self.token: Token[Any] | None = None
        self._blocks, self._slots = blocks, slots
        self._block = -1

    def enter_block(self, number: int) -> None:
        self._block = number

    def leave_blocks(self) -> None:
        self._block = -1

    def slot(self, role: Role, block: int) -> Any:
        """The backend of diffusers that the call would have gone to."""
        number = self._block if block < 0 else block
        calls = self._blocks[number].get(role) if 0 <= number < len(self._blocks) else None
        return self._slots.get((role, calls.layers[0])) if calls else None


class ForwardPass:
    """A pass of a run: its place in the run, the block that is running, and the calls of attention that were made.

    Args:
        routes: what serves each role.
        blocks: the calls of each block.
        layout: how the video tokens are arranged, and the text of the entries of the batch that are computed here.
        arrangement: how they lie within the blocks; None: as they are.
        share: what of them is this process's; None: all.
        gate: how the pass goes through the caching policy; None without one.
        transformer: what runs.
        hints: how many of the blocks, the last ones, make hints for the others: those run when one is asked for.
    """

    def __init__(
        self,
        routes: Mapping[Role, Route],
        blocks: tuple[BlockCalls, ...],
        step: int,
        branch: str,
        layout: TokenLayout,
        arrangement: Arrangement | None = None,
        share: Share | None = None,
        gate: GatedPass | None = None,
        transformer: object = None,
        hints: int = 0,
    ) -> None:
        self.transformer = id(transformer)
        self.token: Token[Any] | None = None
        self.arrangement, self.gate = arrangement, gate
        self._share = share
        self.leaves_out = False
        """Whether what the model adds between its blocks is left out where the pass stands, as the blocks are."""
        self._routes, self._blocks = routes, blocks
        self._step, self._transformer = step, type(transformer).__name__
        self._block, self._ran, self._hints_ran = -1, 0, 0
        self._first_hint = len(blocks) - hints
        self._calls = dict.fromkeys(Role, 0)
        self._entries = len(layout.text_lengths or (0,))
        for route in routes.values():
            route.start_pass(step, branch, layout)

    def attend(
        self,
        role: Role,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float | None,
        block: int = -1,
    ) -> torch.Tensor:
        """Attention of the block that is running; `block` tells which that is where the list of blocks does not."""
        if block >= 0 and block != self._block:
            self.enter_block(block)
        if self._block < 0:
            raise BackendNotUsedError(
                f"{role.value} attention was called by none of the {self._transformer}'s blocks as they were attached: "
                "something replaced its forward or its list of blocks, as cache-dit does; switch it off, or attach last"
            )
        number = self._calls[role]
        self._calls[role] = number + 1
        calls = self._blocks[self._block].get(role)
        if calls is None:
            raise BackendNotUsedError(f"{self._name(self._block)} has no {role.value} attention, and one was called")
        if calls.of_video and calls.has_video_keys(number, self._entries):
            key, value = self._whole_video(key, value)
        entry = number % self._entries if calls.per_entry else None
        route, layer = self._routes[role], calls.layer(number, self._entries)
        # Of CROSS and AUDIO each query is on its own, and the keys are whole.
        if self._share is None or role in (Role.CROSS, Role.AUDIO):
            return route(query, key, value, mask, scale, layer, entry)
        return self._share.attend(route, query, key, value, mask, scale, layer, entry)

    def _whole_video(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the video tokens for queries that are others: of all of them, without padding."""
        if self._share is not None:
            key, value = (self._share.sequence.gather(one, 1, self._share.places) for one in (key, value))
        order = self.arrangement.order if self.arrangement is not None else None
        if order is not None and order.padding:
            # Only a backend of the video's own attention knows which places of its order are padding.
            key, value = (one.index_select(1, order.scatter) for one in (key, value))
        return key, value

    def calls(self, role: Role) -> int:
        """Calls of a role in the block that is running."""
        return self._calls[role]

    def enter_block(self, number: int) -> None:
        """The block of that number is about to run.

        Raises:
            BackendNotUsedError: the block before it made other calls than it has.
        """
        if self._block >= 0:
            self._check_calls()
        if number >= len(self._blocks):
            raise BackendNotUsedError(
                f"block {number} of the {self._transformer} was not there when it was attached; detach, and attach "
                "again"
            )
        self._block = number
        if number < self._first_hint:
            self._ran += 1
        else:
            self._hints_ran += 1
        for role in self._calls:
            self._calls[role] = 0

    def leave_blocks(self) -> None:
        """The last block of a list has run; raises as `enter_block`."""
        if self._block >= 0:
            self._check_calls()
        self._block = -1

    def finish(self) -> None:
        """Check that the pass went through all blocks, or was skipped by the policy.

        Raises:
            BackendNotUsedError: it was not.
        """
        self.leave_blocks()
        if self.gate is not None and not self.gate.decided:
            raise BackendNotUsedError(
                f"the caching policy was not asked in step {self._step}: something replaced the list of blocks of the "
                f"{self._transformer}; attach last"
            )
        if self.gate and self.gate.skips:
            complete = self._ran == self.gate.always_run
        else:
            complete = self._ran + self._hints_ran == len(self._blocks)
        if complete:
            return
        raise BackendNotUsedError(
            f"{self._ran + self._hints_ran} of the {len(self._blocks)} blocks of the {self._transformer} ran in step "
            f"{self._step}: something replaced its forward, or leaves out blocks; attach last, and use one thing that "
            "does"
        )

    def _check_calls(self) -> None:
        for role, calls in self._blocks[self._block].items():
            expected, made = calls.expected(self._entries), self._calls[role]
            if made != expected:
                modules = " and ".join(dict.fromkeys(calls.modules))
                raise BackendNotUsedError(
                    f"{modules} of the {self._transformer} called {role.value} attention {made} times in step "
                    f"{self._step}, where it calls it {expected} times: something replaced its processor, or goes "
                    "around it; attach last"
                )

    def _name(self, block: int) -> str:
        modules = [name for calls in self._blocks[block].values() for name in calls.modules]
        return f"block {block} of the {self._transformer} ({', '.join(dict.fromkeys(modules))})"


_current: ContextVar[ForwardPass | BarePass | None] = ContextVar("fastvideo_pass", default=None)


def current_pass() -> ForwardPass | BarePass | None:
    """The pass that is under way in this thread."""
    return _current.get()


def begin(begun: ForwardPass | BarePass) -> None:
    """Make a pass the one that is under way in this thread."""
    begun.token = _current.set(begun)


def end(ended: ForwardPass | BarePass) -> None:
    """What was under way before the pass is so again."""
    if ended.token is None:
        return
    try:
        _current.reset(ended.token)
    except ValueError:  # it began in another context
        _current.set(None)
    ended.token = None


PassT = TypeVar("PassT", bound="ForwardPass | BarePass")


@contextmanager
def under_way(begun: PassT) -> Iterator[PassT]:
    """The pass is the one that is under way while the context lasts."""
    begin(begun)
    try:
        yield begun
    finally:
        end(begun)
