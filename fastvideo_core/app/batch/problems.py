"""What is wrong with many rows, told in one error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastvideo_core.errors import FastVideoError, InputError

_SHOWN = 20


class Problems:
    """Errors of rows, collected with their places."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    @contextmanager
    def noted(self, place: str) -> Iterator[None]:
        """Keep an error of the project's that is raised within."""
        try:
            yield
        except FastVideoError as error:
            self._lines.append(f"{place}: {error}" if place else str(error))

    def raise_any(self) -> None:
        """Raise InputError with the first of them, if there are any, and how many more there are."""
        if not self._lines:
            return
        more = len(self._lines) - _SHOWN
        shown = [*self._lines[:_SHOWN], *([f"and {more} more rows are wrong"] if more > 0 else [])]
        raise InputError("\n".join(shown))
