"""Tensors between the processes of one group. Sizes follow from the whole one's, so nobody has to ask for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
import torch.distributed as dist

from fastvideo_core.engine.attention.clock import KernelClock
from fastvideo_core.engine.parallel.groups import Group

# torch 2.13 calls it otherwise, and warns of the older name.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class Traffic:
    """What one process has sent in a run.

    Attributes:
        sent: bytes of tensors that went to other processes.
        clock: measures the time in collectives, where somebody wants to know it.
    """

    def __init__(self, clock: KernelClock | None = None) -> None:
        self.sent = 0
        self.clock = clock


class Peers:
    """The processes that share one thing, of which this is one.

    What has n parts is cut into pieces of as equal length as can be, the longer ones first.

    Args:
        group: that of all of them; None for a process that is alone.
        index: this process's place among `size`.
        staged: whether tensors go through the memory of the computer, as gloo has it.
        failed: makes the error to raise of what torch raises.
    """

    def __init__(
        self,
        group: Group | None,
        index: int,
        size: int,
        traffic: Traffic,
        staged: bool = False,
        failed: Callable[[Exception, str], Exception] = lambda error, what: error,
    ) -> None:
        self.index, self.size, self.traffic = index, size, traffic
        self._held, self._staged, self._failed = group, staged, failed

    def sizes(self, total: int) -> list[int]:
        """The length of each one's piece."""
        return [total // self.size + (i < total % self.size) for i in range(self.size)]

    def bounds(self, total: int) -> tuple[int, int]:
        """Where this one's piece begins and ends."""
        sizes = self.sizes(total)
        start = sum(sizes[: self.index])
        return start, start + sizes[self.index]

    def own(self, whole: torch.Tensor, axis: int) -> torch.Tensor:
        """This one's piece of a tensor that all have."""
        start, stop = self.bounds(whole.shape[axis])
        return whole.narrow(axis, start, stop - start)

    def gather(self, piece: torch.Tensor, axis: int, total: int) -> torch.Tensor:
        """The whole tensor, from everyone's piece along an axis."""
        if self.size == 1:
            return piece
        sizes = self.sizes(total)
        longest = sizes[0]
        if piece.shape[axis] < longest:  # gloo, and NCCL's fast way, want equal ones
            shape = list(piece.shape)
            shape[axis] = longest - shape[axis]
            piece = torch.cat([piece, piece.new_zeros(shape)], dim=axis)
        sent = piece.contiguous()
        every = sent.new_empty(self.size * sent.numel())
        self._run("all_gather", lambda i, o: _all_gather(o, i, self._group), sent.view(-1), every)
        self.traffic.sent += sent.numel() * sent.element_size() * (self.size - 1)
        parts = every.view(self.size, *sent.shape)
        return torch.cat([part.narrow(axis, 0, size) for part, size in zip(parts, sizes, strict=True)], dim=axis)

    def cut_otherwise(self, pieces: Sequence[torch.Tensor], axis: int, new: int, total: int) -> list[torch.Tensor]:
        """Tensors of which this one has a piece along `axis` and all along `new`; afterwards the other way round.

        All are on their way at once, so that each is packed while the one before is sent.

        Args:
            total: their whole length along `axis`.
        """
        begun = [self._send(piece, axis, new, total) for piece in pieces]
        return [finish() for finish in begun]

    def broadcast(self, tensor: torch.Tensor, source: int = 0) -> torch.Tensor:
        """The tensor that one of them has, the first if no other is named."""
        if self.size == 1:
            return tensor
        sent = tensor.contiguous() if self.index == source else tensor.contiguous().clone()

        def send(one: torch.Tensor, result: torch.Tensor) -> None:
            dist.broadcast(result, group=self._group, group_src=source)

        self._run("broadcast", send, sent, sent)
        if self.index == source:
            self.traffic.sent += sent.numel() * sent.element_size() * (self.size - 1)
        return sent

    @property
    def _group(self) -> Any:
        return None if self._held is None else self._held.group

    def _send(self, piece: torch.Tensor, axis: int, new: int, total: int) -> Callable[[], torch.Tensor]:
        mine, theirs = self.sizes(piece.shape[new]), self.sizes(total)
        line = prod(size for place, size in enumerate(piece.shape) if place not in (axis, new))
        sends = [size * piece.shape[axis] * line for size in mine]
        out = [size * mine[self.index] * line for size in theirs]
        packed = _packed(piece, new, mine)
        received = packed.new_empty(sum(out))
        wait = self._start_exchange(packed, received, sends, out)
        self.traffic.sent += (packed.numel() - sends[self.index]) * packed.element_size()

        def finish() -> torch.Tensor:
            shape = list(piece.shape)
            shape[new] = mine[self.index]
            return _unpacked(wait(), shape, axis, theirs, out)

        return finish

    def _start_exchange(
        self, packed: torch.Tensor, received: torch.Tensor, sends: list[int], receives: list[int]
    ) -> Callable[[], torch.Tensor]:
        """Have the exchange begin; what is returned waits for its end."""
        if self.traffic.clock or (self._staged and packed.device.type != "cpu"):
            # One after the other, so that each one's time is its own.
            self._run(
                "all_to_all",
                lambda i, o: dist.all_to_all_single(o, i, receives, sends, self._group),
                packed,
                received,
            )
            return lambda: received
        work = self._guarded(
            "all_to_all",
            lambda: dist.all_to_all_single(received, packed, receives, sends, self._group, async_op=True),
        )

        def wait() -> torch.Tensor:
            self._guarded("all_to_all", work.wait)
            return received

        return wait

    def _run(
        self,
        what: str,
        collective: Callable[[torch.Tensor, torch.Tensor], Any],
        given: torch.Tensor,
        result: torch.Tensor,
    ) -> None:
        """A collective from beginning to end, measured where that is wanted."""

        def run() -> None:
            if self._staged and given.device.type != "cpu":
                there, back = given.cpu(), result.cpu()
                collective(there, back)
                result.copy_(back)
            else:
                collective(given, result)

        clock = self.traffic.clock
        self._guarded(what, run if clock is None else lambda: clock.measured(given.device, run))

    def _guarded(self, what: str, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except (RuntimeError, ValueError) as error:
            raise self._failed(error, what) from error


def _packed(piece: torch.Tensor, axis: int, sizes: list[int]) -> torch.Tensor:
    """The pieces along an axis one behind the other in memory."""
    if len(set(sizes)) == 1:
        return torch.unflatten(piece, axis, (len(sizes), sizes[0])).movedim(axis, 0).contiguous().view(-1)
    return torch.cat([part.reshape(-1) for part in torch.split(piece, sizes, dim=axis)])


def _unpacked(
    received: torch.Tensor, shape: list[int], axis: int, sizes: list[int], elements: list[int]
) -> torch.Tensor:
    """The reverse: what lies behind one another becomes pieces along an axis."""
    whole = [*shape]
    whole[axis] = sum(sizes)
    if all(size == 1 for size in shape[:axis]):
        return received.view(whole)
    parts = []
    for part, size in zip(torch.split(received, elements), sizes, strict=True):
        shape[axis] = size
        parts.append(part.view(shape))
    return torch.cat(parts, dim=axis)
