"""Measure how the signal's change and the residual's change go together, and fit the polynomial."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastvideo_core import Action, Branch, CachePolicy, JsonLines, Signal, Step, VideoGenerator, relative_change
from fastvideo_core.errors import InputError
from fv_teacache.coefficients import Calibration

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

DEGREE = 4
LEAST_PAIRS = 100
LEAST_ARGUMENTS = 2 * (DEGREE + 1)
"""How many different arguments a fit needs at least."""

Pair = tuple[float, float]
"""The relative L1 change of the signal from a step to the next, and that of the block stack's residual."""


@dataclass
class _State:
    signal: torch.Tensor | None = None
    residual: torch.Tensor | None = None
    change: float = 0.0


@dataclass
class Collector(CachePolicy):
    """Computes every step and collects a pair for each but a branch's first."""

    name = "TEACACHE_CALIBRATION"
    signal: Signal = Signal.TIME_EMBEDDING
    pairs: list[Pair] = field(default_factory=list)

    def start(self, branch: Branch) -> _State:
        return _State()

    def decide(self, step: Step, state: _State) -> Action:
        assert step.signal is not None
        if state.signal is not None:
            state.change = relative_change(step.signal, state.signal)
        state.signal = step.signal
        return Action.COMPUTE

    def observe(self, step: Step, state: _State, residual: torch.Tensor) -> None:
        if state.residual is not None:
            self.pairs.append((state.change, relative_change(residual, state.residual)))
        state.residual = residual

    def run_details(self) -> dict[str, Any]:
        return {"signal": self.signal.value}


def collect(
    generator: VideoGenerator,
    signal: Signal,
    prompts: Sequence[str],
    sampling: dict[str, Any],
    notes: Path,
    progress: Callable[[int, str], None],
) -> list[Pair]:
    """The pairs of all prompts; what was measured is kept in `notes`, a line a prompt, and not measured again.

    Raises:
        InputError: the notes are of another calibration.
    """
    setup = {"model": generator.info.name, "signal": signal.value, **sampling}
    lines = JsonLines(notes)
    known = _read_notes(lines, setup)
    if known is None:
        lines.append(setup)
        known = {}
    for number, prompt in enumerate(prompts):
        if prompt in known:
            continue
        progress(number, prompt)
        collector = Collector(signal)
        generator.generate_video(prompt, cache=collector, save_video=False, **sampling)
        known[prompt] = collector.pairs
        lines.append({"prompt": prompt, "pairs": collector.pairs})
    return [pair for prompt in dict.fromkeys(prompts) for pair in known[prompt]]


def _read_notes(notes: JsonLines, setup: dict[str, Any]) -> dict[str, list[Pair]] | None:
    """What an interrupted calibration has measured; None if there was none."""
    try:
        before, *entries = notes.read() or [None]
        known = {entry["prompt"]: [(float(x), float(y)) for x, y in entry["pairs"]] for entry in entries}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{str(notes.path)!r} is damaged ({error}); remove it") from error
    if before not in (None, setup):
        raise InputError(
            f"{str(notes.path)!r} holds what was measured with other settings ({json.dumps(before)}); remove it, or "
            "choose another --output"
        )
    return None if before is None else known


def check_amount(prompts: int, steps: int) -> None:
    """Refuse what cannot give enough pairs, before anything is measured: a step gives two at most, one a branch.

    Raises:
        InputError: with how many there could be.
    """
    if (most := 2 * prompts * (steps - 1)) < LEAST_PAIRS:
        raise InputError(
            f"{prompts} prompts of {steps} steps give at most {most} pairs, a fit needs {LEAST_PAIRS}; give more "
            "prompts or steps"
        )


def fit(pairs: Iterable[Pair], signal: Signal, model: str, prompts: int, steps: int) -> Calibration:
    """The polynomial of degree 4 that fits the pairs best.

    Raises:
        InputError: there are too few of them, or too few different arguments.
    """
    changes, outcomes = np.array(list(pairs), dtype=float).reshape(-1, 2).T
    different = len(np.unique(changes.round(9)))
    if len(changes) < LEAST_PAIRS or different < LEAST_ARGUMENTS:
        raise InputError(
            f"{len(changes)} pairs with {different} different changes of the signal are too few for a fit: at least "
            f"{LEAST_PAIRS} and {LEAST_ARGUMENTS} are needed; give more prompts or steps"
        )
    coefficients = np.polyfit(changes, outcomes, DEGREE)
    return Calibration(
        coefficients=tuple(map(float, coefficients)),
        signal=signal,
        model=model,
        prompts=prompts,
        pairs=len(changes),
        steps=steps,
        r_squared=_r_squared(outcomes, np.polyval(coefficients, changes)),
        domain=(float(changes.min()), float(changes.max())),
    )


def _r_squared(values: NDArray[np.float64], prepared: NDArray[np.float64]) -> float:
    spread = float(((values - values.mean()) ** 2).sum())
    return 1 - float(((values - prepared) ** 2).sum()) / spread if spread else 1.0


def draw(pairs: Sequence[Pair], calibration: Calibration, path: Path) -> None:
    """A scatter plot of the pairs with the fit, as PNG."""
    from matplotlib.figure import Figure

    changes, outcomes = np.array(pairs).T
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    axes.scatter(changes, outcomes, s=8, alpha=0.4, label=f"{len(pairs)} pairs, {calibration.prompts} prompts")
    line = np.linspace(changes.min(), changes.max(), 200)
    title = f"degree {DEGREE}, R² = {calibration.r_squared:.3f}"
    axes.plot(line, np.maximum(0, np.polyval(calibration.coefficients, line)), color="tab:red", label=title)
    axes.set_xlabel(f"relative L1 change of {calibration.signal.value}")
    axes.set_ylabel("relative L1 change of the residual")
    axes.set_title(calibration.model, parse_math=False)
    axes.legend()
    figure.savefig(path, format="png", dpi=110)
