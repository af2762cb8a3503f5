"""A progress bar over denoising steps, on the terminal's error stream, so that output stays clean: an observer."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from fastvideo_core.contract.hookspecs import API_VERSION, hookimpl
from fastvideo_core.contract.observing import Generation

if TYPE_CHECKING:
    from rich.progress import Progress

api_version = API_VERSION

_bars: WeakKeyDictionary[Generation, Progress] = WeakKeyDictionary()


@hookimpl
def fastvideo_generation_started(generation: Generation) -> None:
    """Show the bar, where that is wanted and the error stream is a terminal."""
    if not generation.show_progress:
        return
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
    bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    bar.add_task("denoising", total=generation.num_steps)
    bar.start()
    _bars[generation] = bar


@hookimpl
def fastvideo_step_done(generation: Generation) -> None:
    if bar := _bars.get(generation):
        bar.update(bar.task_ids[0], completed=generation.steps_done, total=generation.num_steps)


@hookimpl
def fastvideo_generation_finished(generation: Generation) -> None:
    _remove(generation)


@hookimpl
def fastvideo_generation_failed(generation: Generation) -> None:
    _remove(generation)


def _remove(generation: Generation) -> None:
    if bar := _bars.pop(generation, None):
        bar.stop()
