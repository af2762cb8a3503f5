"""Time the calls of attention kernels, and what is sent around them, on a GPU without waiting for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch

from fastvideo_core.contract.attention import AttentionCall, AttentionFunction

Result = TypeVar("Result")


class KernelClock:
    """Adds up what kernels take: by events of the GPU, by the clock elsewhere."""

    def __init__(self) -> None:
        self._on_cpu = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def around(self, attend: AttentionFunction) -> AttentionFunction:
        """The function, timed."""

        def timed(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            return self.measured(query.device, partial(attend, query, key, value, call))

        return timed

    def measured(self, device: torch.device, work: Callable[[], Result]) -> Result:
        """The result of work that is done on a device, with its time added."""
        if device.type == "cuda":
            stream = torch.cuda.current_stream(device)
            begin = stream.record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
            result = work()
            end = stream.record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
            self._events.append((begin, end))
            return result
        start = time.perf_counter()
        result = work()
        self._on_cpu += time.perf_counter() - start
        return result

    def seconds(self) -> float:
        """All of them together; waits for the GPU that each ran on."""
        for _, end in self._events:
            end.synchronize()
        return self._on_cpu + sum(float(begin.elapsed_time(end)) for begin, end in self._events) / 1e3
