"""DBCACHE: always compute the first and the last blocks, and reuse what those between them add while little changes.

Dual Block Cache, from cache-dit (https://github.com/vipshop/cache-dit): more of the first blocks make a better guess of
what the others would do, and some of the last blocks correct what was reused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastvideo_core import Action, Branch, CachePolicy, Signal, Step, hookimpl, relative_change
from fastvideo_core.errors import InputError

if TYPE_CHECKING:
    import torch

api_version = 1


@dataclass
class _State:
    at_last_computed: torch.Tensor | None = None
    skips: int = 0


@dataclass
class DBCache(CachePolicy):
    """Works for any family. Reading the change waits for the device once a step.

    Attributes:
        threshold: the relative L1 change of what the first blocks add up to which the middle is reused; the higher, the
            more steps are skipped.
        first_blocks: how many first blocks are always computed, at least 1; F in cache-dit.
        last_blocks: how many last blocks are always computed; B in cache-dit.
        warm_up: how many first steps are computed whole.
        max_skips: how many steps in a row may be skipped; 0 for any number.
        branches_decide_together: whether the first guidance branch of a step decides for the others too, rather than
            each for itself.
    """

    name = "DBCACHE"
    main_setting = "threshold"
    signal = Signal.FIRST_BLOCK_OUTPUT
    threshold: float = 0.08
    first_blocks: int = 1
    last_blocks: int = 1
    warm_up: int = 0
    max_skips: int = 0
    branches_decide_together: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.threshold, int | float) or not 0 <= self.threshold < 1:
            raise InputError(f"DBCACHE: threshold is {self.threshold!r}, it must be a number from 0 to below 1")
        for name, low in (("first_blocks", 1), ("last_blocks", 0), ("warm_up", 0), ("max_skips", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise InputError(f"DBCACHE: {name} is {value!r}, it must be a whole number of {low} or more")

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
