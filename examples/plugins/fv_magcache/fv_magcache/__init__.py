"""MAGCACHE: skip while the magnitude of the residual is known to change little.

MagCache (Ma et al. 2025, https://github.com/Zehong-Ma/MagCache): how the magnitude of the residual changes from step to
step is nearly the same for every prompt, so it is measured once for a model (`python -m fv_magcache --help`), and the
whole schedule is known before the first step.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from fastvideo_core import Action, Branch, CachedModel, CachePolicy, Step, hookimpl
from fastvideo_core.errors import InputError, PolicyMismatchError

api_version = 2

FILE = "magcache.json"


@dataclass
class _State:
    ratio: float = 1.0
    error: float = 0.0
    skips: int = 0


@dataclass
class MagCache(CachePolicy):
    """Works for any family, with ratios that were measured for the model.

    Attributes:
        threshold: the accumulated error up to which steps are skipped; the higher, the more.
        max_skips: how many steps in a row may be skipped.
        retention: the share of first steps that are always computed.
        ratios: per step, the residual's magnitude over that of the step before; or the file that has them; default:
            magcache.json in the model's folder. For another number of steps the nearest one counts.
    """

    name = "MAGCACHE"
    main_setting = "threshold"
    threshold: float = 0.12
    max_skips: int = 4
    retention: float = 0.2
    ratios: Sequence[float] | str | Path | None = field(default=None)

    def __post_init__(self) -> None:
        for name, high in (("threshold", 10), ("max_skips", 1000), ("retention", 1)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= high:
                raise InputError(f"MAGCACHE: {name} is {value!r}, it must be a number from 0 to {high}")

    def for_model(self, model: CachedModel) -> Self:
        source = self.ratios if self.ratios is not None else model.folder and model.folder / FILE
        if isinstance(source, str | Path):
            source = _read(Path(source)) if self.ratios is not None or Path(source).is_file() else None
        if not source:
            raise PolicyMismatchError(
                f"MAGCACHE has no ratios for {model.name}; measure them: python -m fv_magcache --model {model.name} "
                f"--output {FILE}, and give the file as MAGCACHE@{self.threshold}:ratios={FILE}"
            )
        return replace(self, ratios=list(source))

    def plan(self, branch: Branch) -> list[Action]:
        state = _State()
        return [self._next(index, branch.num_steps, state) for index in range(branch.num_steps)]

    def start(self, branch: Branch) -> _State:
        return _State()

    def decide(self, step: Step, state: _State) -> Action:
        return self._next(step.index, step.num_steps, state)

    def _next(self, index: int, num_steps: int, state: _State) -> Action:
        if index and index >= self.retention * num_steps:
            assert isinstance(self.ratios, list)
            state.ratio *= self.ratios[round(index * (len(self.ratios) - 1) / max(1, num_steps - 1))]
            state.error += abs(1 - state.ratio)
            state.skips += 1
            if state.error < self.threshold and state.skips <= self.max_skips:
                return Action.REUSE
        state.ratio, state.error, state.skips = 1.0, 0.0, 0
        return Action.COMPUTE


def _read(path: Path) -> list[float]:
    try:
        ratios = json.loads(path.expanduser().read_text("utf-8"))["ratios"]
        return [float(ratio) for ratio in ratios]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"MAGCACHE: {str(path)!r} has no ratios that can be read: {error!r}") from error


@hookimpl
def fastvideo_cache_policies() -> list[type[CachePolicy]]:
    return [MagCache]
