"""One process decides for all: a rank that skips a step which the others compute would wait for them for ever."""

from __future__ import annotations

from fastvideo_core.contract.caching import Action
from fastvideo_core.engine.caching.decisions import OwnDecisions, Plan
from fastvideo_core.engine.parallel.guidance import GuidanceSplit
from fastvideo_core.engine.parallel.processes import Processes


class SharedDecisions(OwnDecisions):
    """The first process's; where the branches are computed apart, that of the first one of each branch."""

    def __init__(self, processes: Processes, guidance: GuidanceSplit) -> None:
        self._processes, self._guidance = processes, guidance

    @property
    def leads(self) -> bool:  # type: ignore[override]  # a constant where there is one process
        return not self._guidance.apart or self._guidance.team.guidance.index == 0

    def plan(self, plan: Plan) -> Plan:
        team = self._guidance.team if self._guidance.apart else None
        found: Plan = self._processes.from_first("a policy's plan", plan, team)
        return found

    def action(self, action: Action | None, planned: bool, together: bool) -> Action | None:
        apart = self._guidance.apart
        if planned and not (apart and together):
            return action  # all have the same plan
        team = self._guidance.team if apart and not together else None
        found: Action | None = self._processes.from_first("a policy's decision", action, team)
        return found
