"""The shift of the noise schedule: which scheduler has one, which value holds at a size, and a run with it.

Models of flow matching are trained for a shift that grows with the number of tokens. A folder in diffusers format has
one value; where a card gives another for another size, the preset says so.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastvideo_core.contract.preset import ModelPreset


def shift_of_size(preset: ModelPreset | None, height: int, width: int) -> float | None:
    """What the model's preset says for a size, or for the nearest one in pixels; None if it says nothing."""
    if preset is None or not preset.flow_shift:
        return None
    pixels = math.log(max(height * width, 1))
    nearest = min(preset.flow_shift, key=lambda size: abs(math.log(size[0] * size[1]) - pixels))
    return preset.flow_shift[nearest]


def shift_problem(config: Mapping[str, Any]) -> str | None:
    """Why a scheduler, by its configuration, cannot be given a shift; None if it can."""
    kind = str(config.get("_class_name") or "scheduler that is not known")
    if _argument(kind) is None:
        return f"its scheduler, a {kind}, has none"
    if config.get("use_dynamic_shifting"):
        return f"its scheduler, a {kind}, computes it from the number of tokens"
    if _argument(kind) == "flow_shift" and not config.get("use_flow_sigmas"):
        return f"its scheduler, a {kind}, has no flow sigmas"
    return None


def shift_in(config: Mapping[str, Any]) -> float | None:
    """The shift that a scheduler has by its configuration; None if it has none that could be given."""
    argument = _argument(str(config.get("_class_name")))
    return float(config.get(argument, 1.0)) if argument and shift_problem(config) is None else None


@contextmanager
def shifted(pipe: Any, shift: float | None) -> Iterator[None]:
    """Give the pipeline a scheduler of that shift while the context lasts; None leaves it alone."""
    own = pipe.scheduler
    argument = _argument(type(own).__name__)
    if shift is None or argument is None or own.config[argument] == shift:
        yield
        return
    pipe.scheduler = type(own).from_config(own.config, **{argument: shift})
    try:
        yield
    finally:
        pipe.scheduler = own


def _argument(scheduler: str) -> str | None:
    """The name of a scheduler's argument for the shift."""
    import diffusers

    kind = getattr(diffusers, scheduler, None)
    if not isinstance(kind, type):
        return None
    names = inspect.signature(kind).parameters
    return next((name for name in ("flow_shift", "shift") if name in names), None)
