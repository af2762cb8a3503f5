"""TeaCache as a caching policy.

The relative change of a signal, put through a polynomial that was prepared for the model, predicts the change of the
blocks' output; predictions are added up, and while the sum is below the threshold the residual is reused. Liu et al.
2024, "Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model"; https://github.com/ali-vilab/TeaCache.
"""

from __future__ import annotations

import json
import math
import os.path
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fastvideo_core import Action, Branch, CachedModel, CachePolicy, Signal, Step, relative_change, setting
from fastvideo_core.errors import InputError, PolicyMismatchError
from fv_teacache.checkpoints import find, known_names
from fv_teacache.coefficients import FILE, Calibration, as_numbers

if TYPE_CHECKING:
    import torch

FIRST_STEPS_OF_RET = 5
"""How many first steps the variant `use_ret_steps` always computes."""


def _coefficients(value: Any) -> tuple[float, ...] | str | Path:
    """Numbers, as a sequence or as text with commas; else the name of a file or of a checkpoint."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        return as_numbers(value)
    if value.startswith("["):
        return as_numbers(json.loads(value))
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        return value
    return as_numbers(numbers)


@dataclass
class _State:
    accumulated: float = 0.0
    skips: int = 0
    before: torch.Tensor | None = None


@dataclass
class TeaCache(CachePolicy):
    """For models with coefficients: those that were published, and those that were calibrated.

    The higher the threshold, the more steps are skipped, the faster, and the further from the original. The variant
    `use_ret_steps` looks at the time embedding's projection, computes the first 5 steps and may skip the last one.
    """

    name = "TEACACHE"
    main_setting = "threshold"
    threshold: float | None = setting(
        None,
        "the predicted change, added up, below which steps are skipped; by default the lowest that was published for "
        "the model, or that of the file of coefficients",
        ge=0,
        le=100,
    )
    use_ret_steps: bool = setting(False, "whether to use the other variant that was published for Wan 2.1")
    coefficients: Sequence[float] | str | Path | None = setting(
        None,
        "of the polynomial, highest power first; or a file that `fv teacache calibrate` wrote; or the name of a "
        f"checkpoint whose published ones to use; by default {FILE} in the model's folder, else what was published "
        "for the model's name",
        parse=_coefficients,
        file=True,
    )
    max_skips: int = setting(10, "how many steps in a row may be skipped", ge=1)

    def for_model(self, model: CachedModel) -> Self:
        """With coefficients, signal and threshold for the model.

        Raises:
            PolicyMismatchError: there are no coefficients for it.
            InputError: a file of coefficients cannot be read; or no threshold is known.
        """
        if self.use_ret_steps and model.family != "Wan":
            raise InputError(f"TEACACHE: use_ret_steps is a variant for Wan; this is a {model.family} model")
        calibration, published = self._find(model)
        threshold = self.threshold
        if threshold is None:
            threshold = calibration.threshold if published is None else published[0]
        if threshold is None:
            raise InputError(
                f"TEACACHE has no default threshold for {model.name}: give one, such as TEACACHE@0.1; "
                "`fv teacache plan` shows what it would skip"
            )
        if published and not published[0] <= threshold <= published[-1]:
            span = f"{published[0]} to {published[-1]}"
            warnings.warn(
                f"TEACACHE: threshold {threshold} is outside what was published for {model.name}, {span}; the higher "
                "it is, the more steps are skipped",
                stacklevel=2,
            )
        prepared = replace(self, threshold=threshold, coefficients=calibration.coefficients)
        prepared.signal = calibration.signal
        return prepared

    def _find(self, model: CachedModel) -> tuple[Calibration, tuple[float, ...] | None]:
        """The coefficients for a model, and the thresholds that were published with them."""
        given = self.coefficients
        if given is not None and not isinstance(given, str | Path):
            return Calibration(tuple(given), usual_signal(model.family, self.use_ret_steps)), None
        named = str(given) if given is not None else model.checkpoint
        in_folder = model.folder / FILE if model.folder else None
        if given is not None and _is_file(Path(given)):
            return Calibration.read(Path(given)), None
        if given is None and in_folder and in_folder.is_file() and not self.use_ret_steps:
            return Calibration.read(in_folder), None
        if published := find(named, self.use_ret_steps):
            return Calibration(
                published.coefficients, usual_signal(model.family, self.use_ret_steps)
            ), published.thresholds
        variant = " with use_ret_steps" if self.use_ret_steps else ""
        if given is not None:
            raise InputError(
                f"TEACACHE: coefficients {named!r} are no file, and none were published by that name{variant}; "
                f"there are {', '.join(known_names())}"
            )
        raise PolicyMismatchError(
            f"TEACACHE has no coefficients for {model.name} (a {model.family} model){variant}: calibrate them with "
            f"`fv teacache calibrate --model {model.name} --prompts FILE --output {FILE}`, and put that file into the "
            "model's folder or give it as coefficients; or give the name of a checkpoint whose to use: "
            f"{', '.join(known_names())}"
        )

    def plan(self, branch: Branch) -> list[Action] | None:
        if branch.changes is None:
            return None
        state = _State()
        return [self._next(index, branch.num_steps, change, state) for index, change in enumerate(branch.changes)]

    def start(self, branch: Branch) -> _State:
        return _State()

    def decide(self, step: Step, state: _State) -> Action:
        change = 0.0
        if state.before is not None and not self._must_compute(step.index, step.num_steps):
            assert step.signal is not None
            change = relative_change(step.signal, state.before)
        state.before = step.signal
        return self._next(step.index, step.num_steps, change, state)

    def _next(self, index: int, num_steps: int, change: float, state: _State) -> Action:
        assert self.threshold is not None
        if not self._must_compute(index, num_steps):
            state.accumulated += self.predicted(change)
            if state.accumulated < self.threshold and state.skips < self.max_skips:
                state.skips += 1
                return Action.REUSE
        state.accumulated, state.skips = 0.0, 0
        return Action.COMPUTE

    def _must_compute(self, index: int, num_steps: int) -> bool:
        if self.use_ret_steps:
            return index < FIRST_STEPS_OF_RET
        return index in (0, num_steps - 1)

    def predicted(self, change: float) -> float:
        """The polynomial, not below 0: the published ones are, in places, and would skip without end. NaN: infinity."""
        assert isinstance(self.coefficients, tuple)
        value = 0.0
        for coefficient in self.coefficients:
            value = value * change + coefficient
        return math.inf if math.isnan(value) else max(0.0, value)

    def run_details(self) -> dict[str, Any]:
        return {"signal": self.signal.value}


def _is_file(path: Path) -> bool:
    try:
        return Path(os.path.expanduser(path)).is_file()
    except OSError:  # such as for a name of 5,000 letters
        return False


def usual_signal(family: str, use_ret_steps: bool) -> Signal:
    """What the published algorithm looks at, for a family of models."""
    if use_ret_steps:
        return Signal.TIME_PROJECTION
    return Signal.TIME_EMBEDDING if family in ("Wan", "CogVideoX") else Signal.MODULATED_INPUT
