"""EASYCACHE: skip while what enters the blocks predicts that what leaves them would change little.

EasyCache (Zhou et al. 2025, https://github.com/H-EmbodVis/EasyCache): the change of the output is taken to be that of
the input times the ratio of the two at the last computed steps. The paper looks at the latents that enter
and leave the whole transformer; here it is the tokens that enter and leave its blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastvideo_core import Action, Branch, CachePolicy, Signal, Step, hookimpl, setting

if TYPE_CHECKING:
    import torch

api_version = 2


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

    Published: 10 of 50 steps as the warm-up, and the branches decide together.
    """

    name = "EASYCACHE"
    main_setting = "threshold"
    signal = Signal.HIDDEN
    threshold: float = setting(
        0.05, "the predicted relative change, added up, below which steps are skipped", ge=0, le=10
    )
    warm_up: int = setting(5, "how many first steps are computed; the last one always is", ge=1)
    branches_decide_together: bool = setting(
        True, "whether the first guidance branch of a step decides for the others too, rather than each for itself"
    )

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
