"""Load plugins without waiting for any of them for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence

from fastvideo_core.discovery.printable import explain
from fastvideo_core.errors import PluginError

Load = tuple[Hashable, Callable[[], None]]
"""What it is, and what loads it."""

_stuck: set[Hashable] = set()
"""What did not end in time in this process: it still runs, and would be waited for again."""


def load_within(seconds: float, load: Callable[[], None], what: Hashable) -> None:
    """Call `load` in a thread of its own, which is left to itself when the time is up.

    Raises:
        PluginError: it does not end in time, or raises what would end the program, such as SystemExit.
        Exception: what it raises.
    """
    (problem,) = load_each_within(seconds, [(what, load)])
    if problem is not None:
        raise problem


def load_each_within(seconds: float, loads: Sequence[Load]) -> list[Exception | None]:
    """Likewise one after the other, each with that time; what `load_within` would raise of each, None of one that ends.

    They share a thread for as long as none is stuck: to start one takes longer than what most plugins do.
    """
    problems: list[Exception | None] = []
    while len(problems) < len(loads):
        problems += _up_to_the_first_stuck(seconds, loads[len(problems) :])
    return problems


def _up_to_the_first_stuck(seconds: float, loads: Sequence[Load]) -> list[Exception | None]:
    series = _Series(seconds, loads)
    series.start()
    try:
        while series.is_alive():
            series.join(max(0.0, series.began + seconds - time.monotonic()))
            with series.lock:
                if series.is_late():
                    _stuck.add(loads[len(series.problems)][0])
                    return [*series.problems, _too_slow(seconds)]
    finally:
        series.left = True
    return series.problems


class _Series(threading.Thread):
    """Loads one after the other, until it is left to itself.

    Attributes:
        problems: of those that have ended.
        began: when the one that runs did.
    """

    def __init__(self, seconds: float, loads: Sequence[Load]) -> None:
        super().__init__(daemon=True)
        self._seconds, self._loads = seconds, loads
        self.problems: list[Exception | None] = []
        self.began, self.left, self.lock = time.monotonic(), False, threading.Lock()

    def is_late(self) -> bool:
        return len(self.problems) < len(self._loads) and time.monotonic() - self.began >= self._seconds

    def run(self) -> None:
        for what, load in self._loads:
            self.began = time.monotonic()
            problem = _too_slow(self._seconds) if what in _stuck else _problem_of(load)
            with self.lock:
                if self.left:
                    return
                self.problems.append(problem)


def _problem_of(load: Callable[[], None]) -> Exception | None:
    try:
        load()
    except Exception as error:
        return error
    except BaseException as error:  # Ctrl-C reaches the main thread alone: whatever is raised here is the plugin's
        ending = PluginError(f"it ended in {explain(error)}, which would end the program")
        ending.__cause__ = error
        return ending
    return None


def _too_slow(seconds: float) -> PluginError:
    return PluginError(
        f"its import did not end within {seconds:g} s; report it to its author, or set FASTVIDEO_PLUGIN_TIMEOUT"
    )
