"""Load a plugin without waiting for it for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from copy import copy
from typing import TYPE_CHECKING

from fastvideo_core.errors import PluginError

if TYPE_CHECKING:
    from fastvideo_core.discovery.plugins import Plugin

_stuck: set[Hashable] = set()
"""What did not end in time in this process: it still runs, and would be waited for again."""


def load_within(seconds: float, plugin: Plugin, load: Callable[[Plugin], None], what: Hashable) -> Plugin:
    """The plugin with what `load` makes of it: loaded, or broken if that raises or does not end in time.

    It is loaded in a thread of its own, which is left to itself when the time is up.
    """
    loading, failure = copy(plugin), list[BaseException]()

    def run() -> None:
        try:
            load(loading)
        except (Exception, SystemExit) as error:
            failure.append(error)

    if what in _stuck:
        return _broken(plugin, _too_slow(seconds))
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _stuck.add(what)
        return _broken(plugin, _too_slow(seconds))
    if failure:
        error = failure[0]
        ended = error if isinstance(error, Exception) else PluginError(f"the import ended in {error!r}")
        return _broken(plugin, ended)
    return loading


def _too_slow(seconds: float) -> PluginError:
    return PluginError(
        f"its import did not end within {seconds:g} s; report it to its author, or set FASTVIDEO_PLUGIN_TIMEOUT"
    )


def _broken(plugin: Plugin, error: Exception) -> Plugin:
    plugin.status, plugin.error = "broken", error
    return plugin
