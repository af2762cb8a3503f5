"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from fastvideo_core import Receipt


class Metrics:
    """Counters since the service started, and the queue as it is.

    Args:
        waiting: tells how many jobs wait.
        running: tells how many are in progress.
    """

    def __init__(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Queue(waiting, running))
        self._ended = self._counter("fastvideo_videos", "Jobs that ended", "status")
        self._seconds = self._counter("fastvideo_phase_seconds", "Seconds spent in each phase", "phase")
        self._steps = self._counter("fastvideo_passes", "Passes of the transformer's blocks", "outcome")
        self._calls = self._counter(
            "fastvideo_attention_calls", "Calls of attention kernels", "role", "backend", "kernel"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def made(self, receipt: Receipt) -> None:
        """Count what a video took."""
        for phase, seconds in receipt.seconds.items():
            if phase != "load":
                self._seconds.labels(phase).inc(seconds)
        self._steps.labels("computed").inc(sum(receipt.steps_computed.values()))
        self._steps.labels("skipped").inc(sum(receipt.steps_skipped.values()))
        for role, served in receipt.attention.items():
            for kernel in served.kernels:
                self._calls.labels(role, served.backend, kernel.kernel).inc(kernel.calls)

    def ended(self, status: str) -> None:
        self._ended.labels(status).inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Queue(Collector):
    def __init__(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        self._waiting, self._running = waiting, running

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("fastvideo_queue_length", "Jobs that wait", value=self._waiting())
        yield GaugeMetricFamily("fastvideo_in_progress", "Jobs in progress", value=self._running())

    def describe(self) -> Iterable[Metric]:
        return []
