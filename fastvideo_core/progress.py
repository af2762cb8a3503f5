"""A progress bar over denoising steps, on the terminal's error stream so that output stays clean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fastvideo_core.attachment import ProgressListener


@contextmanager
def denoising_bar(show: bool) -> Iterator[ProgressListener]:
    """Yield a listener that draws the bar; it draws nothing where the error stream is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not (show and console.is_terminal), transient=True) as progress:
        task = progress.add_task("denoising", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
