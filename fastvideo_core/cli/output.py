"""Keep a command's output to the command: what plugins print goes to the error stream."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import click

from fastvideo_core.discovery.plugins import Plugins, load_plugins
from fastvideo_core.discovery.printable import printable


def say(text: str, err: bool = False) -> None:
    """Print a line without anything in it that would steer the terminal."""
    click.echo(printable(text), err=err)


@contextmanager
def own_output() -> Iterator[None]:
    """What is printed within goes to the error stream. Only `fv` does this: the process is its own."""
    with redirect_stdout(sys.stderr):
        yield


def discovered() -> Plugins:
    """All plugins; what they print while they load is no output of the command."""
    with own_output():
        return load_plugins()
