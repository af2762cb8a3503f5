"""One bar while a model is loaded, on terminals only, in place of those of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastvideo_core.discovery.printable import printable


@contextmanager
def loading_bar(total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar on the error stream if that is a terminal; yields what is told the name of each part that is begun.

    The libraries' own bars are switched off while it lasts, in the whole process, as they know it no other way.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("loading {task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    task = bar.add_task("", total=total)
    begun: list[str] = []

    def begin(part: str) -> None:
        bar.update(task, description=printable(part), completed=len(begun), refresh=True)
        begun.append(part)

    with without_their_bars(), bar:
        yield begin


@contextmanager
def without_their_bars() -> Iterator[None]:
    """Keep the bars of diffusers and transformers away while the context lasts."""
    import diffusers.utils.logging
    import transformers.utils.logging

    libraries = [diffusers.utils.logging, transformers.utils.logging]
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()
