"""DBCACHE: always compute the first and the last blocks, and reuse what those between them add while little changes.

Dual Block Cache, from cache-dit (https://github.com/vipshop/cache-dit): more of the first blocks make a better guess of
what the others would do, and some of the last blocks correct what was reused.
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
    skips: int = 0


@dataclass
class DBCache(CachePolicy):
    """Works for any family. Reading the change waits for the device once a step.

    F and B, as cache-dit counts them, are `first_blocks` and `last_blocks`.
    """

    name = "DBCACHE"
    main_setting = "threshold"
    signal = Signal.FIRST_BLOCK_OUTPUT
    threshold: float = setting(
        0.08, "the relative L1 change of what the first blocks add up to which the middle is reused", ge=0, le=1
    )
    first_blocks: int = setting(1, "how many first blocks are always computed", ge=1)
    last_blocks: int = setting(1, "how many last blocks are always computed", ge=0)
    warm_up: int = setting(0, "how many first steps are computed whole", ge=0)
    max_skips: int = setting(0, "how many steps in a row may be skipped; 0 for any number", ge=0)
    branches_decide_together: bool = setting(
        True, "whether the first guidance branch of a step decides for the others too, rather than each for itself"
    )

    def start(self, branch: Branch) -> _State:
        return _State()

    def decide(self, step: Step, state: _State) -> Action:
        assert step.signal is not None
        added = step.signal - step.hidden
        before = state.at_last_computed
        may_skip = before is not None and step.index >= self.warm_up and not 0 < self.max_skips <= state.skips
        if may_skip and before is not None and relative_change(added, before) < self.threshold:
            state.skips += 1
            return Action.REUSE
        state.at_last_computed, state.skips = added, 0
        return Action.COMPUTE


@hookimpl
def fastvideo_cache_policies() -> list[type[CachePolicy]]:
    return [DBCache]
