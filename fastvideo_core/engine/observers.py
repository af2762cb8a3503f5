"""Tell plugins of a generation: that it starts, after each of its steps, and how it ends."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from fastvideo_core.contract.observing import Generation
from fastvideo_core.discovery.printable import explain
from fastvideo_core.errors import CancelledError

if TYPE_CHECKING:
    from fastvideo_core.contract.receipt import Receipt
    from fastvideo_core.discovery.plugins import Plugins


class Observers:
    """The plugins that watch one generation; one that raises is disabled for the rest of it, with a warning."""

    def __init__(self, plugins: Plugins, generation: Generation) -> None:
        self._hooks = {
            plugin.label: plugin.manager.hook for plugin in plugins.loaded if plugin.manager and plugin.watches
        }
        self._generation = generation
        self._under_way = False
        self._steps_before = 0

    def started(self, num_steps: int) -> None:
        """A run starts: of a generation that is under way, one more, whose steps are added to those before."""
        self._steps_before = self._generation.steps_done if self._under_way else 0
        self._generation.num_steps = self._steps_before + num_steps
        if not self._under_way:
            self._under_way = True
            self._tell("fastvideo_generation_started")
        self._end_if_cancelled()

    def step_done(self, steps_done: int) -> None:
        self._generation.steps_done = self._steps_before + steps_done
        if self._under_way:
            self._tell("fastvideo_step_done")
        self._end_if_cancelled()

    def finished(self, receipt: Receipt) -> None:
        """It ended well; nothing if it has not started, or has ended."""
        if self._end():
            self._tell("fastvideo_generation_finished", receipt=receipt)

    def failed(self, error: BaseException) -> None:
        """It ended with an error, which goes on its way; nothing if it has not started, or has ended."""
        if self._end():
            self._tell("fastvideo_generation_failed", error=error)

    def _end_if_cancelled(self) -> None:
        generation = self._generation
        if generation.cancelled:
            raise CancelledError(
                f"the video was cancelled after {generation.steps_done} of {generation.num_steps} steps; nothing was "
                "written"
            )

    def _end(self) -> bool:
        ended, self._under_way = self._under_way, False
        return ended

    def _tell(self, hook: str, **arguments: Any) -> None:
        for label, hooks in list(self._hooks.items()):
            try:
                getattr(hooks, hook)(generation=self._generation, **arguments)
            except KeyboardInterrupt:  # the user's
                raise
            except BaseException as error:
                del self._hooks[label]
                warnings.warn(
                    f"{label} failed in {hook} ({explain(error)}); it is disabled for the rest of the run",
                    stacklevel=2,
                )
