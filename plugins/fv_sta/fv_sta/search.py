"""Choose windows from measured errors: for each head the cheapest that is good enough.

The published search takes the window with the smallest error for each head, whatever it costs (FastVideo, STA_2025);
here a window is taken for what it saves, as long as its error stays under a bound.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fastvideo_core import VideoGenerator, written_whole
from fastvideo_core.errors import InputError
from fv_sta.observer import OBSERVER, Observer
from fv_sta.sparse import cost_of
from fv_sta.strategy import Table
from fv_sta.tiles import Tiling, Triple
from fv_sta.windows import is_full


@dataclass(frozen=True)
class Measured:
    """Errors and costs of windows.

    Attributes:
        errors: (steps, layers, windows, heads), averaged over prompts.
        windows: the candidates; `costs` their share of full attention's work.
    """

    errors: NDArray[np.float64]
    windows: tuple[Triple, ...]
    costs: NDArray[np.float64]
    tiling: Tiling
    family: str


@dataclass(frozen=True)
class Choice:
    """A table of windows, what share of full attention's work it leaves, and the error to expect of it."""

    table: Table
    density: float
    error: float
    max_error: float
    density_of_range: tuple[float, ...]
    error_of_range: tuple[float, ...]


def candidates(tiles: Triple) -> list[Triple]:
    """Every odd window and every whole axis, but not full attention."""
    sides = [sorted({*range(1, count, 2), count}) for count in tiles]
    found = [(time, height, width) for time, height, width in product(*sides)]
    return [window for window in found if not is_full(window, tiles)]


def measure(
    generator: VideoGenerator,
    prompts: Sequence[str],
    sampling: dict[str, Any],
    windows: Sequence[Triple],
    notes: Path,
    progress: Callable[[int, str], None],
) -> Measured:
    """Generate every prompt with full attention and note every window's error; kept prompt by prompt in `notes`.

    Args:
        notes: a file that is read, if an earlier search with the same settings was interrupted, and written.
        progress: told how many prompts are done, and the prompt.
    """
    settings = {"model": generator.info.name, "sampling": sampling, "windows": windows, "prompts": list(prompts)}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
    done = _read_notes(notes, key)
    observer = Observer(windows)
    for number, prompt in enumerate(prompts):
        progress(number, prompt)
        if number < len(done):
            continue
        token = OBSERVER.set(observer)
        try:
            generator.generate_video(prompt, save_video=False, **sampling)
        finally:
            OBSERVER.reset(token)
        assert observer.tiling is not None
        done.append(observer.take())
        _write_notes(notes, key, done, observer)
    tiling, text = _canvas(notes)
    costs = np.array([cost_of(tiling, window, *text) for window in windows])
    return Measured(np.mean(done, axis=0), tuple(windows), costs, tiling, generator.info.family.name)


def _read_notes(notes: Path, key: str) -> list[NDArray[np.float64]]:
    if not notes.exists():
        return []
    try:
        with np.load(notes, allow_pickle=False) as content:
            before, errors = str(content["key"]), list(content["errors"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(f"{str(notes)!r} is damaged, so no search can go on from it; delete it") from error
    if before != key:
        raise InputError(
            f"{str(notes)!r} holds an interrupted search with other settings; finish that one, or delete the file"
        )
    return errors


def _write_notes(notes: Path, key: str, done: list[NDArray[np.float64]], observer: Observer) -> None:
    assert observer.tiling is not None
    canvas = np.array([observer.tiling.grid, observer.tiling.tile])
    with written_whole(notes, overwrite=True) as temporary, temporary.open("wb") as file:
        np.savez(file, key=key, errors=np.array(done), canvas=canvas, text=np.array(observer.text))


def _canvas(notes: Path) -> tuple[Tiling, tuple[int, int]]:
    with np.load(notes, allow_pickle=False) as content:
        grid, tile = (tuple(row) for row in content["canvas"].tolist())
        queries, keys = content["text"].tolist()
    return Tiling(grid, tile), (queries, keys)


def choose(measured: Measured, ranges: int, dense_steps: int, max_error: float) -> Choice:
    """The cheapest window for each layer, head and range of steps whose mean error there stays under a bound."""
    steps, layers, _, heads = measured.errors.shape
    edges = np.linspace(dense_steps, steps, ranges + 1).round().astype(int)
    costs = np.append(measured.costs, 1.0)
    windows = np.array([*measured.windows, measured.tiling.tiles], dtype=np.int32)
    table = np.zeros((steps, layers, heads, 3), dtype=np.int32)
    table[:dense_steps] = measured.tiling.tiles
    density, error = np.ones(steps), np.zeros(steps)
    for first, last in pairwise(edges):
        if first == last:
            continue
        mean = measured.errors[first:last].mean(axis=0)  # (layers, windows, heads)
        mean = np.concatenate((mean, np.zeros((layers, 1, heads))), axis=1)
        # Of windows that cost the same, the one with the smaller error.
        price = np.where(mean <= max_error, costs[None, :, None] + 1e-6 * mean, np.inf)
        best = price.argmin(axis=1)  # (layers, heads)
        table[first:last] = windows[best]
        density[first:last] = costs[best].mean()
        error[first:last] = np.take_along_axis(mean, best[:, None], axis=1).mean()
    return Choice(
        Table(table, dense_steps, measured.family, measured.tiling.grid, measured.tiling.tile),
        float(density.mean()),
        float(error[dense_steps:].mean()) if dense_steps < steps else 0.0,
        max_error,
        tuple(float(density[a:b].mean()) for a, b in pairwise(edges) if a < b),
        tuple(float(error[a:b].mean()) for a, b in pairwise(edges) if a < b),
    )


def choose_density(measured: Measured, ranges: int, dense_steps: int, density: float) -> Choice:
    """The smallest bound on the error that brings the work down to a share of full attention's, dense steps included.

    Raises:
        InputError: the cheapest windows do not reach it.
    """
    low, high = 0.0, float(measured.errors.max())
    choice = choose(measured, ranges, dense_steps, high)
    if choice.density > density:
        raise InputError(
            f"a density of {density} is out of reach: the cheapest windows after {dense_steps} dense steps leave "
            f"{choice.density:.3f}; offer smaller windows or fewer dense steps"
        )
    for _ in range(40):
        middle = (low + high) / 2
        tried = choose(measured, ranges, dense_steps, middle)
        if tried.density <= density:
            high, choice = middle, tried
        else:
            low = middle
    return choice
