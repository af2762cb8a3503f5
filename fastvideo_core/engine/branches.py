"""Tell the guidance branches of a pipeline that names none: by the order of its transformer's calls within a step."""

from __future__ import annotations

from fastvideo_core.errors import CacheError


class CallsInStep:
    """The calls without a name in the steps of one run. The first of a step is "", the next "call 2", and so on.

    Args:
        policy: the name of the policy that goes by branches; None without one, so that any calls are fine.
        order: evaluations of the model in a step of the scheduler.
    """

    def __init__(self, policy: str | None, order: int = 1) -> None:
        self._policy, self._order = policy, order
        self._expected: int | None = None
        self._calls = 0

    def next(self, step: int) -> str:
        """The branch of the call that is about to start.

        Raises:
            CacheError: a policy needs to know, and the step makes more calls than the first, or the scheduler itself
                evaluates the model several times a step.
        """
        self._calls += 1
        if self._calls == 1:
            return ""
        if self._policy and self._order > 1:
            raise CacheError(
                f"{self._problem()}, and its scheduler evaluates the model {self._order} times a step, so that "
                f"{self._policy} cannot tell branches from evaluations; choose a scheduler of order 1, or no policy"
            )
        if self._expected is not None and self._calls > self._expected:
            self._refuse(step)
        return f"call {self._calls}"

    def step_done(self, step: int) -> None:
        """A step is over.

        Raises:
            CacheError: a policy needs to know, and the step made other calls than the first.
        """
        made, self._calls = self._calls, 0
        if self._expected is None:
            self._expected = made
        elif made != self._expected:
            self._calls = made
            self._refuse(step)
            self._calls = 0

    def _refuse(self, step: int) -> None:
        if self._policy:
            raise CacheError(
                f"{self._problem()}, which are told by their order; step {step} makes {self._calls} calls and the "
                f"first made {self._expected}, so {self._policy} would mix branches up; run it without a policy, or "
                "name branches with transformer.cache_context(name)"
            )

    def _problem(self) -> str:
        return "this pipeline does not say for which guidance branch it calls its transformer"
