"""The standard streams of `fv`, which may be closed, or on a disk that is full."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, TextIO, cast

import click

from fastvideo_core.discovery.printable import printable
from fastvideo_core.errors import OutputError


class _Checked:
    """Standard output, whose errors are ours: click would end without a word where a pipe is closed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _explained():
            return self._stream.write(text)

    def flush(self) -> None:
        with _explained():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def checked_output() -> Iterator[None]:
    """What is printed within raises OutputError where it cannot be written."""
    with redirect_stdout(cast(TextIO, _Checked(sys.stdout))):
        yield


def open_closed_streams() -> None:
    """See to it that no file that is opened takes the place of a standard stream that is closed.

    Raises:
        OutputError: standard output is closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, so this one
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  # as long as the process lasts
    if sys.stdout is None:
        raise OutputError("standard output is closed, so nothing can be printed; send it to a file")


def say_at_the_end(text: str) -> None:
    """Print an error, if there is still somewhere to print it to."""
    with suppress(OSError):
        click.echo(printable(text), err=True)


def finish_streams() -> OutputError | None:
    """Write what is left in the streams, and say whether it could be; Python's own end must not try again."""
    problem = _finish(sys.stdout)
    _finish(sys.stderr)
    return problem


def _finish(stream: TextIO | None) -> OutputError | None:
    if stream is None:
        return None
    try:
        with _explained():
            stream.flush()
    except OutputError as problem:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return problem
    return None


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"standard output cannot be written to: {error.strerror or error}") from error
