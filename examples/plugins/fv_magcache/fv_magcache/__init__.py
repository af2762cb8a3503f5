"""MAGCACHE: skip while the magnitude of the residual is known to change little.

MagCache (Ma et al. 2025, https://github.com/Zehong-Ma/MagCache): how the magnitude of the residual changes from step to
step is nearly the same for every prompt, so it is measured once for a model (`python -m fv_magcache --help`), and the
whole schedule is known before the first step.
"""

from __future__ import annotations

import json
import os.path
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from fastvideo_core import Action, Branch, CachedModel, CachePolicy, Step, hookimpl, setting
from fastvideo_core.errors import InputError, PolicyMismatchError

api_version = 2

FILE = "magcache.json"


def _ratios(value: Any) -> tuple[tuple[float, ...], ...]:
    """For each expert, from a file, from text as JSON has it, or from a sequence of numbers or of an expert's each."""
    if isinstance(value, str) and value.startswith("["):
        value = json.loads(value)
    if isinstance(value, str | Path):
        return _read(Path(value))
    several = value if len(value) and isinstance(value[0], Sequence) else [value]
    for ratios in several:
        if not len(ratios) or not all(type(ratio) in (int, float) for ratio in ratios):
            raise ValueError("they must be numbers, one a step")
    return tuple(tuple(map(float, ratios)) for ratios in several)


def _read(path: Path) -> tuple[tuple[float, ...], ...]:
    try:
        return _ratios(json.loads(Path(os.path.expanduser(path)).read_text("utf-8"))["ratios"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"MAGCACHE: {str(path)!r} has no ratios that can be read: {error!r}") from error


@dataclass
class _State:
    ratios: Sequence[float]
    ratio: float = 1.0
    error: float = 0.0
    skips: int = 0


@dataclass
class MagCache(CachePolicy):
    """Works for any family, with ratios that were measured for the model.

    For another number of steps than they were measured with, the ratio of the nearest one counts.
    """

    name = "MAGCACHE"
    main_setting = "threshold"
    threshold: float = setting(0.12, "the accumulated error up to which steps are skipped", ge=0, le=10)
    max_skips: int = setting(4, "how many steps in a row may be skipped", ge=0, le=1000)
    retention: float = setting(0.2, "the share of first steps that are always computed", ge=0, le=1)
    ratios: Sequence[float] | Sequence[Sequence[float]] | str | Path | None = setting(
        None,
        "per step, the residual's magnitude over that of the step before, for several experts a list each; or a file "
        f"that has them; by default {FILE} in the model's folder",
        parse=_ratios,
        file=True,
    )

    def for_model(self, model: CachedModel) -> Self:
        source, own = self.ratios, model.folder and model.folder / FILE
        if source is None and own and own.is_file():
            source = own
        if source is None:
            raise PolicyMismatchError(
                f"MAGCACHE has no ratios for {model.name}; measure them: python -m fv_magcache --model {model.name} "
                f"--output {FILE}, and give the file as MAGCACHE@{self.threshold}:ratios={FILE}"
            )
        ratios = _ratios(source)
        if model.num_experts is not None and len(ratios) != model.num_experts:
            raise PolicyMismatchError(
                f"MAGCACHE: {model.name} has {model.num_experts} experts, and there are ratios for {len(ratios)}; "
                f"measure them on this model: python -m fv_magcache --model {model.name} --output {FILE}"
            )
        return replace(self, ratios=ratios)

    def plan(self, branch: Branch) -> list[Action]:
        state = self.start(branch)
        return [self._next(index, branch.num_steps, state) for index in range(branch.num_steps)]

    def start(self, branch: Branch) -> _State:
        assert isinstance(self.ratios, tuple)
        return _State(self.ratios[branch.expert])

    def decide(self, step: Step, state: _State) -> Action:
        return self._next(step.index, step.num_steps, state)

    def _next(self, index: int, num_steps: int, state: _State) -> Action:
        if index and index >= int(self.retention * num_steps + 0.5):
            state.ratio *= state.ratios[round(index * (len(state.ratios) - 1) / max(1, num_steps - 1))]
            state.error += abs(1 - state.ratio)
            state.skips += 1
            if state.error < self.threshold and state.skips <= self.max_skips:
                return Action.REUSE
        state.ratio, state.error, state.skips = 1.0, 0.0, 0
        return Action.COMPUTE


@hookimpl
def fastvideo_cache_policies() -> list[type[CachePolicy]]:
    return [MagCache]
