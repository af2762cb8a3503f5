"""FIRSTBLOCK: reuse the rest of the blocks while the first one's contribution hardly changes.

First Block Cache, from ParaAttention (https://github.com/chengzeyi/ParaAttention): the first block always runs; while
its residual differs from that of the last computed step by less than a threshold, that of the others is reused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastvideo_core import Action, Branch, CachePolicy, Signal, Step, hookimpl, relative_change, setting

if TYPE_CHECKING:
    import torch

api_version = 2


@dataclass
class _State:
    at_last_computed: torch.Tensor | None = None


@dataclass
class FirstBlockCache(CachePolicy):
    """Works for any family. Reading the change waits for the device once a step."""

    name = "FIRSTBLOCK"
    main_setting = "threshold"
    signal = Signal.FIRST_BLOCK_OUTPUT
    threshold: float = setting(
        0.08, "the relative L1 change of the first block's residual up to which the rest is reused", ge=0, le=10
    )
    branches_decide_together: bool = setting(
        True, "whether the first guidance branch of a step decides for the others too, rather than each for itself"
    )

    def start(self, branch: Branch) -> _State:
        return _State()

    def decide(self, step: Step, state: _State) -> Action:
        assert step.signal is not None
        residual = step.signal - step.hidden
        before = state.at_last_computed
        if before is not None and relative_change(residual, before) < self.threshold:
            return Action.REUSE
        state.at_last_computed = residual
        return Action.COMPUTE


@hookimpl
def fastvideo_cache_policies() -> list[type[CachePolicy]]:
    return [FirstBlockCache]
