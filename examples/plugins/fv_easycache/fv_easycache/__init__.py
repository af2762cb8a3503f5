"""EASYCACHE: skip while what enters the blocks predicts that what leaves them would change little.

EasyCache (Zhou et al. 2025, https://github.com/H-EmbodVis/EasyCache): the change of the output is taken to be that of
the input times the ratio of the two at the last computed steps. The paper looks at the latents that enter
and leave the whole transformer; here it is the tokens that enter and leave its blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastvideo_core import Action, Branch, CachePolicy, Signal, Step, hookimpl
from fastvideo_core.errors import InputError

if TYPE_CHECKING:
    import torch

api_version = 1


@dataclass
class _State:
    """Of the branch that decides.

    Attributes:
        before: what entered in the step before.
        entered, left: what entered and left in the last computed step.
        ratio: how much the output changed for a change of the input, at the last computed steps.
        accumulated: the predicted change since the last computed step.
    """

    before: torch.Tensor | None = None
    entered: torch.Tensor | None = None
    left: torch.Tensor | None = None
    ratio: torch.Tensor | None = None
    accumulated: float = 0.0


@dataclass
class EasyCache(CachePolicy):
    """Works for any family. Reading the prediction waits for the device once a step.

    Attributes:
        threshold: the predicted relative change, added up, below which steps are skipped; the higher, the more.
        warm_up: how many first steps are computed; the last one always is. Published: 10 of 50.
        branches_decide_together: whether the first guidance branch of a step decides for the others too, as published,
            rather than each for itself.
    """

    name = "EASYCACHE"
    main_setting = "threshold"
    signal = Signal.HIDDEN
    threshold: float = 0.05
    warm_up: int = 5
    branches_decide_together: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.threshold, int | float) or not 0 <= self.threshold <= 10:
            raise InputError(f"EASYCACHE: threshold is {self.threshold!r}, it must be a number from 0 to 10")
        if not isinstance(self.warm_up, int) or isinstance(self.warm_up, bool) or self.warm_up < 1:
            raise InputError(f"EASYCACHE: warm_up is {self.warm_up!r}, it must be a whole number of 1 or more")

    def start(self, branch: Branch) -> _State:
        return _State()

    def decide(self, step: Step, state: _State) -> Action:
        before, state.before = state.before, step.hidden
        if not self.warm_up <= step.index < step.num_steps - 1:
            state.accumulated = 0.0
        elif before is not None and state.left is not None and state.ratio is not None:
            change = _difference(step.hidden, before) / state.left.float().abs().mean()
            state.accumulated += float((state.ratio * change).item())
            if state.accumulated < self.threshold:
                return Action.REUSE
            state.accumulated = 0.0
        return Action.COMPUTE

    def observe(self, step: Step, state: _State, residual: torch.Tensor) -> None:
        if state.before is None:
            return  # another branch decides for this one
        left = step.hidden + residual
        if state.left is not None and state.entered is not None:
            state.ratio = _difference(left, state.left) / _difference(step.hidden, state.entered)
        state.entered, state.left = step.hidden, left


def _difference(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The mean absolute difference, in float32."""
    return (one.float() - other.float()).abs().mean()


@hookimpl
def fastvideo_cache_policies() -> list[type[CachePolicy]]:
    return [EasyCache]
