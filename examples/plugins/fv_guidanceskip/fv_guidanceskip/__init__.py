"""GUIDANCESKIP: compute the branch without the prompt every few steps, and follow the branch with it in between.

In the manner of FasterCache (Lv et al. 2024, https://github.com/Vchitect/FasterCache): the two branches of guidance
differ by nearly the same from step to step, so the one is the other plus the difference that was kept. The paper weighs
low and high frequencies of that difference by the step; here it is added as it is, to what the blocks add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastvideo_core import Action, Branch, CachePolicy, Computed, Step, hookimpl, setting
from fastvideo_core.errors import PolicyMismatchError

if TYPE_CHECKING:
    import torch

api_version = 2


@dataclass
class _State:
    skips: bool
    difference: torch.Tensor | None = None


@dataclass
class GuidanceSkip(CachePolicy):
    """For pipelines that run the branches of guidance one after the other; knows its schedule before the first step."""

    name = "GUIDANCESKIP"
    main_setting = "interval"
    sees_others = True
    interval: int = setting(2, "every how many steps the branch without the prompt is computed; 1 computes all", ge=1)
    after: float = setting(0.2, "the share of first steps in which both are computed", ge=0, le=1)

    def plan(self, branch: Branch) -> list[Action]:
        state = self.start(branch)
        return [self._action(index, branch.num_steps, state) for index in range(branch.num_steps)]

    def start(self, branch: Branch) -> _State:
        if branch.name not in ("cond", "uncond"):
            raise PolicyMismatchError(
                f"GUIDANCESKIP needs a pipeline that runs 'cond' and 'uncond' one after the other; "
                f"{branch.model.pipeline} runs {branch.name or 'branches without a name'!r}"
            )
        return _State(skips=branch.name == "uncond")

    def decide(self, step: Step, state: _State) -> Action:
        return self._action(step.index, step.num_steps, state)

    def _action(self, index: int, num_steps: int, state: _State) -> Action:
        first = max(1, round(self.after * num_steps))
        skips = state.skips and index >= first and (index - first + 1) % self.interval != 0
        return Action.FORECAST if skips else Action.COMPUTE

    def observe(self, step: Step, state: _State, residual: torch.Tensor) -> None:
        if state.skips:
            state.difference = residual - _of_cond(step)

    def forecast(self, step: Step, state: _State, computed: Sequence[Computed]) -> torch.Tensor:
        assert state.difference is not None
        return _of_cond(step) + state.difference


def _of_cond(step: Step) -> torch.Tensor:
    if "cond" not in step.others:
        raise PolicyMismatchError("GUIDANCESKIP needs a pipeline that runs 'cond' before 'uncond' in every step")
    return step.others["cond"]


@hookimpl
def fastvideo_cache_policies() -> list[type[CachePolicy]]:
    return [GuidanceSkip]
