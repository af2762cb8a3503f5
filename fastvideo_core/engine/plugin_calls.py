"""Call what a plugin's author wrote: whatever comes out of it names the plugin and the hook."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from fastvideo_core.contract.attention import AttentionBackend
from fastvideo_core.contract.receipt import plain
from fastvideo_core.contract.settings import HasSettings
from fastvideo_core.discovery.printable import explain
from fastvideo_core.errors import FastVideoError, PluginError


@contextmanager
def hook(owner: HasSettings, name: str) -> Iterator[None]:
    """A hook of a backend or a policy runs. An error keeps its type, and a note names both.

    Raises:
        PluginError: it raises what would end the program, such as SystemExit.
    """
    try:
        yield
    except (FastVideoError, KeyboardInterrupt):  # said in words already; the user's
        raise
    except Exception as error:
        error.add_note(f"in {name} of {owner.name}")
        raise
    except BaseException as error:
        raise PluginError(
            f"{name} of {owner.name} ended in {explain(error)}, which would end the program; report it to its author"
        ) from error


def check_grid(backends: Iterable[AttentionBackend], grid: tuple[int, int, int]) -> None:
    """Let each backend refuse a video by the grid of its tokens.

    Raises:
        InputError, BackendError: what a backend says of it.
    """
    for backend in backends:
        with hook(backend, "check_grid"):
            backend.check_grid(grid)


def details_of(owner: Any) -> dict[str, Any]:
    """What a backend or a policy tells of a run that has ended well, as plain values.

    One that cannot tell costs a warning and not the video: what ran is known without it.
    """
    try:
        told = owner.run_details()
        if not isinstance(told, dict):
            raise TypeError(f"it is {type(told).__name__}, not dict")
        return {str(name): plain(value) for name, value in told.items()}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        warnings.warn(f"run_details of {owner.name} failed ({explain(error)}); the receipt goes without", stacklevel=2)
        return {}
