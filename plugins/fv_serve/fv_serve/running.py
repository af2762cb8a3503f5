"""The video that is being made right now: how far it is, and the way to end it, from whichever thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from fastvideo_core import Generation

_here = threading.local()


class Followed(Protocol):
    """What is looked at while a video is made: a `Generation`, or one in another process."""

    @property
    def steps_done(self) -> int: ...

    @property
    def num_steps(self) -> int: ...

    def cancel(self) -> None: ...


class Running:
    """One job, from the encoding of its text to its file."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self._lock = threading.Lock()
        self._generation: Followed | None = None
        self._cancelled = False

    @property
    def steps(self) -> tuple[int, int]:
        """How many steps are done, of how many; 0 of 0 before the first has begun."""
        generation = self._generation
        return (generation.steps_done, generation.num_steps) if generation else (0, 0)

    @property
    def phase(self) -> str:
        """What it is busy with: "text", "denoise", or "decode", which includes writing the file."""
        done, total = self.steps
        if not total:
            return "text"
        return "denoise" if done < total else "decode"

    @property
    def percent(self) -> int:
        """Of the steps; 100 is for a video that is there."""
        done, total = self.steps
        return min(99, 100 * done // total) if total else 0

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def follow(self, generation: Followed) -> None:
        with self._lock:
            self._generation = generation
            if self._cancelled:
                generation.cancel()

    def cancel(self) -> None:
        """End it after the step that is under way; before the first, as soon as that would begin."""
        with self._lock:
            self._cancelled = True
            if self._generation is not None:
                self._generation.cancel()


@contextmanager
def followed(run: Running) -> Iterator[None]:
    """Have the generations that start in this thread while the context lasts belong to a job."""
    _here.run = run
    try:
        yield
    finally:
        _here.run = None


def generation_started(generation: Generation) -> None:
    """Told by the core; of a generation that no job asked for, nothing is kept."""
    if (run := getattr(_here, "run", None)) is not None:
        run.follow(generation)
