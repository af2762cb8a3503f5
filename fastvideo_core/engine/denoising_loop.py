"""Know when a pipeline's denoising loop starts, goes on and ends: it enters, updates and leaves a progress bar."""

from __future__ import annotations

from typing import Any, Protocol, Self


class LoopListener(Protocol):
    """Told of a denoising loop."""

    def start_run(self, num_steps: int) -> None:
        """The loop starts."""

    def step_done(self, done: int) -> None:
        """Some of its steps are done."""

    def end_run(self, num_steps: int, error: BaseException | None) -> None:
        """It has ended, by an exception if there is one."""


class DenoisingLoop:
    """Stands in for the progress bar of a denoising loop: a run is what happens between its entry and its exit."""

    def __init__(self, bar: Any, listener: LoopListener) -> None:
        self._bar, self._listener, self._done = bar, listener, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bar, name)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        self._listener.start_run(int(self._bar.total))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._bar.__exit__(kind, error, trace)
        self._listener.end_run(int(self._bar.total), error)

    def update(self, count: int = 1) -> None:
        self._bar.update(count)
        self._done += count
        self._listener.step_done(self._done)
