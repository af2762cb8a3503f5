"""A generator makes one video at a time: whoever comes beside is told at once, and does not wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fastvideo_core.errors import AttachError


class OneAtATime:
    """Held from the encoding of the text to the written file, all of which a second call would change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder = ""

    @contextmanager
    def hold(self, what: str) -> Iterator[None]:
        """Keep all others out while the context lasts, the same thread included.

        Args:
            what: what is to be done, as a verb.

        Raises:
            AttachError: someone else is in.
        """
        if not self._lock.acquire(blocking=False):
            raise AttachError(
                f"this VideoGenerator cannot {what} in thread {threading.current_thread().name!r}: it is generating in "
                f"thread {self._holder!r}, one video at a time; wait for its end, or give each thread a generator"
            )
        try:
            self._holder = threading.current_thread().name
            yield
        finally:
            self._lock.release()
