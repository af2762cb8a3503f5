"""TAYLORSEER: compute every few steps, and forecast the residual in between by its Taylor series.

TaylorSeer (Liu et al. 2025, "From Reusing to Forecasting", https://github.com/Shenyi-Z/TaylorSeer). The paper forecasts
the output of each attention and MLP; here it is the residual of the whole block stack, which costs one tensor a
derivative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from fastvideo_core import Action, Branch, CachePolicy, Computed, Step, hookimpl, setting

if TYPE_CHECKING:
    import torch

api_version = 2


@dataclass
class TaylorSeer(CachePolicy):
    """Works for any family, and knows its schedule before the first step."""

    name = "TAYLORSEER"
    main_setting = "interval"
    interval: int = setting(3, "every how many steps one is computed; 1 computes all", ge=1, le=100)
    order: int = setting(1, "of the highest derivative; 0 reuses the latest residual as it is", ge=0, le=4)
    warm_up: int = setting(3, "how many first steps are computed", ge=1, le=1000)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.history = self.order + 1

    def plan(self, branch: Branch) -> list[Action]:
        return [self._action(index, branch.num_steps) for index in range(branch.num_steps)]

    def decide(self, step: Step, state: None) -> Action:
        return self._action(step.index, step.num_steps)

    def _action(self, index: int, num_steps: int) -> Action:
        computed = index < self.warm_up or index == num_steps - 1 or (index - self.warm_up + 1) % self.interval == 0
        return Action.COMPUTE if computed else Action.FORECAST

    def forecast(self, step: Step, state: None, computed: Sequence[Computed]) -> torch.Tensor:
        """The Taylor series at the latest computed step, with finite differences as derivatives."""
        distance = step.index - computed[-1].index
        differences = [one.residual for one in computed]
        indices = [one.index for one in computed]
        result = differences[-1]
        for order in range(1, len(computed)):
            differences = [
                (later - earlier) / (indices[number + order] - indices[number + order - 1])
                for number, (earlier, later) in enumerate(pairwise(differences))
            ]
            result = result + differences[-1] * (distance**order / math.factorial(order))
        return result


@hookimpl
def fastvideo_cache_policies() -> list[type[CachePolicy]]:
    return [TaylorSeer]
