"""How far a batch is: for each row that ended a line with the time left, and one line at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fastvideo_core.app.batch.row import RowResult, RowStatus


class Tally:
    """Counts rows as they end.

    Args:
        total: how many there are.
        clock: the time in seconds, from wherever.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock, self._start = total, clock, clock()
        self._counts: Counter[RowStatus] = Counter()
        self._making = 0.0

    @property
    def failed(self) -> int:
        return self._counts[RowStatus.FAILED]

    def count(self, result: RowResult) -> str:
        """The line for a row: its number, id, and what came of it; with the time left, as soon as that is known."""
        self._counts[result.status] += 1
        self._making += result.seconds if result.status is RowStatus.MADE else 0.0
        ended = self._counts.total()
        what = {
            RowStatus.MADE: f"{result.seconds:.1f} s",
            RowStatus.FOUND: "done before",
            RowStatus.FAILED: f"failed: {result.error}",
        }[result.status]
        return f"[{ended}/{self._total}] {result.id}  {what}{self._left()}"

    def summary(self, results: Path) -> str:
        """The line at the end."""
        made, found, failed = (self._counts[status] for status in RowStatus)
        return (
            f"{self._counts.total()} of {self._total} videos: {made} made, {found} done before, {failed} failed; "
            f"{duration(self._clock() - self._start)}; results in {results}"
        )

    def _left(self) -> str:
        made, left = self._counts[RowStatus.MADE], self._total - self._counts.total()
        return f"; about {duration(self._making / made * left)} left" if made and left else ""


def duration(seconds: float) -> str:
    """Such as 45 s, 12 min, 3 h 5 min or 2 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h"
