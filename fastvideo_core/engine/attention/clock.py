"""Time the calls of attention kernels, on a GPU without waiting for it."""

from __future__ import annotations

import time

import torch

from fastvideo_core.contract.attention import AttentionCall, AttentionFunction


class KernelClock:
    """Adds up what kernels take: by events of the GPU, by the clock elsewhere."""

    def __init__(self) -> None:
        self._on_cpu = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def around(self, attend: AttentionFunction) -> AttentionFunction:
        """The function, timed."""

        def timed(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: AttentionCall) -> torch.Tensor:
            if query.is_cuda:
                stream = torch.cuda.current_stream(query.device)
                begin = stream.record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
                result = attend(query, key, value, call)
                end = stream.record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
                self._events.append((begin, end))
                return result
            start = time.perf_counter()
            result = attend(query, key, value, call)
            self._on_cpu += time.perf_counter() - start
            return result

        return timed

    def seconds(self) -> float:
        """All of them together; waits for the GPU that each ran on."""
        for _, end in self._events:
            end.synchronize()
        return self._on_cpu + sum(float(begin.elapsed_time(end)) for begin, end in self._events) / 1e3
