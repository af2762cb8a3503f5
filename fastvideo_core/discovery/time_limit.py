"""Load a plugin without waiting for it for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable

from fastvideo_core.discovery.printable import explain
from fastvideo_core.errors import PluginError

_stuck: set[Hashable] = set()
"""What did not end in time in this process: it still runs, and would be waited for again."""


def load_within(seconds: float, load: Callable[[], None], what: Hashable) -> None:
    """Call `load` in a thread of its own, which is left to itself when the time is up.

    Raises:
        PluginError: it does not end in time, or raises what would end the program, such as SystemExit.
        Exception: what it raises.
    """
    failure = list[BaseException]()

    def run() -> None:
        try:
            load()
        except BaseException as error:  # Ctrl-C reaches the main thread alone: whatever is raised here is the plugin's
            failure.append(error)

    if what in _stuck:
        raise _too_slow(seconds)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _stuck.add(what)
        raise _too_slow(seconds)
    if failure:
        error = failure[0]
        if isinstance(error, Exception):
            raise error
        raise PluginError(f"it ended in {explain(error)}, which would end the program") from error


def _too_slow(seconds: float) -> PluginError:
    return PluginError(
        f"its import did not end within {seconds:g} s; report it to its author, or set FASTVIDEO_PLUGIN_TIMEOUT"
    )
