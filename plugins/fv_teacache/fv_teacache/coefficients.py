"""Files of calibrated coefficients."""

from __future__ import annotations

import json
import math
import os.path
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from fastvideo_core import Signal
from fastvideo_core.errors import InputError

FILE = "teacache.json"
"""In a model's folder, it holds the coefficients for that model."""


@dataclass(frozen=True)
class Calibration:
    """Coefficients, and where they come from.

    Attributes:
        coefficients: of the polynomial, highest power first.
        signal: what its argument is the relative change of.
        model: what it was measured on, with `prompts` prompts, `pairs` pairs in all, over `steps` steps each.
        r_squared: the share of the variance that the polynomial explains.
        domain: the least and the greatest argument that were seen.
        threshold: a default for it, if one was chosen.
    """

    coefficients: tuple[float, ...]
    signal: Signal
    model: str = ""
    prompts: int = 0
    pairs: int = 0
    steps: int = 0
    r_squared: float | None = None
    domain: tuple[float, float] | None = None
    threshold: float | None = None

    def to_json(self) -> str:
        """As a file holds it."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that `fv teacache calibrate` wrote.

        Raises:
            InputError: it cannot be read, or holds no coefficients.
        """
        try:
            content = json.loads(Path(os.path.expanduser(path)).read_text("utf-8"))
            content["coefficients"] = as_numbers(content["coefficients"])
            content["signal"] = Signal(content["signal"])
            return cls(**content)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"TEACACHE: {str(path)!r} is no file of `fv teacache calibrate`: {type(error).__name__}: {error}"
            ) from error


def as_numbers(values: Sequence[Any]) -> tuple[float, ...]:
    """Coefficients as numbers; raises ValueError if they are not finite numbers in an order, or none."""
    if isinstance(values, Mapping | Set | bytes):
        raise ValueError("they must be a sequence of numbers, highest power first")
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if not numbers or len(numbers) != len(values) or not all(map(math.isfinite, numbers)):
        raise ValueError("they must be finite numbers, highest power first")
    return tuple(numbers)
