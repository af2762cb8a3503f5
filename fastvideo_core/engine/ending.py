"""The end of a run: clean up whatever happens, and tell of the first error; later ones follow from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from fastvideo_core.contract.attention import AttentionBackend
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.contract.receipt import Receipt
from fastvideo_core.engine.attached_model import AttachedModel
from fastvideo_core.engine.machine import synchronize
from fastvideo_core.engine.parallel.crew import Crew
from fastvideo_core.engine.plugin_calls import hook
from fastvideo_core.engine.receipts import receipt_of
from fastvideo_core.engine.run import ActiveRun

Result = TypeVar("Result")


def _tell(participant: AttentionBackend | CachePolicy, error: BaseException | None) -> None:
    with hook(participant, "end_run"):
        participant.end_run(error)


class Ending:
    """What came of a run whose loop is over.

    Attributes:
        problems: what went wrong, the loop's own error first.
        ended: when the device was done, by `time.perf_counter`.
        receipt: None where there are problems; of all processes, where several share a run.
    """

    def __init__(
        self,
        run: ActiveRun,
        model: AttachedModel,
        requested: str | None,
        error: BaseException | None,
        crew: Crew | None = None,
    ) -> None:
        self.problems = [error] if error is not None else []
        self._attempt(partial(synchronize, model.device))
        self.ended = time.perf_counter()
        self._attempt(partial(run.end_pass, completed=False))
        for check in (run.check_passes, run.check_outputs):
            if not self.problems:
                self._attempt(check)
        for participant in run.participants():
            self._attempt(partial(_tell, participant, self.problems[0] if self.problems else None))
        self.receipt: Receipt | None = None
        if not self.problems:
            self.receipt = self._attempt(partial(receipt_of, run, model, requested, self.ended))
        if crew is not None:
            if self.receipt is not None:
                self.receipt = self._attempt(partial(crew.merged, run, self.receipt))
            if self.problems:
                crew.left(self.problems[0])

    def first_problem(self) -> BaseException | None:
        """The first one, with notes of those that came of it."""
        if not self.problems:
            return None
        first, *later = self.problems
        for problem in later:
            first.add_note(f"then, while the run was cleaned up: {type(problem).__name__}: {problem}")
        return first

    def _attempt(self, action: Callable[[], Result]) -> Result | None:
        try:
            return action()
        except BaseException as problem:
            self.problems.append(problem)
            return None
