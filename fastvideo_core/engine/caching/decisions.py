"""Who decides: this process alone, unless several share a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from fastvideo_core.contract.caching import Action

Plan = TypeVar("Plan", bound="Sequence[Action] | None")


class OwnDecisions:
    """What the policy decides here is what is done."""

    leads = True
    """Whether the policy is asked here at all, where one branch decides for the others."""

    def plan(self, plan: Plan) -> Plan:
        """The plan of a branch."""
        return plan

    def action(self, action: Action | None, planned: bool, together: bool) -> Action | None:
        """The action of a step.

        Args:
            action: what the policy decided here; None where it was not asked.
            planned: whether that is of a plan.
            together: whether it holds for all branches of the step.
        """
        return action
