"""Tell plugins of generations: when one starts, after each of its steps, and how it ends."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastvideo_core.contract.observing import Generation
    from fastvideo_core.contract.receipt import Receipt
    from fastvideo_core.discovery.plugins import Plugins


class Observers:
    """The plugins that watch; one that raises is warned of, and told no more."""

    def __init__(self, plugins: Plugins) -> None:
        self._hooks = {
            plugin.label: plugin.manager.hook
            for plugin in plugins.loaded
            if plugin.manager is not None and _watches(plugin.manager.hook)
        }
        self._under_way: Generation | None = None

    def started(self, generation: Generation) -> None:
        self._under_way = generation
        self._tell("fastvideo_generation_started", generation=generation)

    def step_done(self, steps_done: int) -> None:
        if self._under_way is not None:
            self._under_way.steps_done = steps_done
            self._tell("fastvideo_step_done", generation=self._under_way)

    def finished(self, receipt: Receipt) -> None:
        """The generation that is under way ended well; nothing if none is."""
        if (generation := self._end()) is not None:
            self._tell("fastvideo_generation_finished", generation=generation, receipt=receipt)

    def failed(self, error: BaseException) -> None:
        """The generation that is under way ended with an error, which goes on its way; nothing if none is."""
        if (generation := self._end()) is not None:
            self._tell("fastvideo_generation_failed", generation=generation, error=error)

    def _end(self) -> Generation | None:
        ended, self._under_way = self._under_way, None
        return ended

    def _tell(self, hook: str, **arguments: Any) -> None:
        for label, hooks in list(self._hooks.items()):
            try:
                getattr(hooks, hook)(**arguments)
            except Exception as error:
                del self._hooks[label]
                warnings.warn(
                    f"{label} raised {type(error).__name__} in {hook}: {error}; it is told no more", stacklevel=2
                )


_EVENTS = (
    "fastvideo_generation_started",
    "fastvideo_step_done",
    "fastvideo_generation_finished",
    "fastvideo_generation_failed",
)


def _watches(hooks: Any) -> bool:
    return any(getattr(hooks, event).get_hookimpls() for event in _EVENTS)
