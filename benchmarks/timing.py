"""Seconds of calls that alternate in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from statistics import median
from typing import TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)
Measured = TypeVar("Measured")


BUSY = 20_000_000
"""Cycles, a hundredth of a second or more, for which a GPU is busy before a call that is timed as inside a model."""


def alternate(
    calls: Mapping[Name, Callable[[], object]], device: str, rounds: int, warm_up: int = 3, queued: bool = False
) -> dict[Name, list[float]]:
    """Seconds of each call, one round after the other, every second round in the opposite order.

    Args:
        queued: the GPU is busy while a call is prepared, as it is inside a model: its launch does not count.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    for number in range(warm_up + rounds):
        for name in turn(calls, number):
            taken = timed(calls[name], device, queued)
            if number >= warm_up:
                seconds[name].append(taken)
    return seconds


def turn(names: Iterable[Name], number: int) -> list[Name]:
    """The order of a round: the even ones go backwards."""
    return list(names) if number % 2 else list(names)[::-1]


def in_the_middle(calls: Mapping[Name, Measured], base: Name) -> dict[Name, Measured]:
    """The same with the base neither first nor last, where there are three or more: both places may be special."""
    others = [name for name in calls if name != base]
    middle = (len(others) + 1) // 2
    return {name: calls[name] for name in (*others[:middle], base, *others[middle:])}


def timed(call: Callable[[], object], device: str, queued: bool = False) -> float:
    if device != "cuda":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    if queued:
        torch.cuda._sleep(BUSY)  # type: ignore[no-untyped-call]
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def ratio(seconds: list[float], others: list[float]) -> float:
    """Median of the ratios of calls in the same round."""
    return median(a / b for a, b in zip(seconds, others, strict=True))
