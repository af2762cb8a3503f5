"""Which window each head uses at each step and layer: one for all, or from a file."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastvideo_core import written_whole
from fastvideo_core.errors import InputError
from fv_sta.tiles import Triple, by, check_tile

SCHEMA = "fv-sta/1"
MOST = 1_000_000
"""The largest size or number in a file."""
MOST_WINDOWS = 20_000_000


ALL = slice(None)


class Strategy(Protocol):
    """What a backend asks at each call."""

    def windows(self, step: int, layer: int, num_steps: int, heads: int, own: slice = ALL) -> tuple[Triple, ...] | None:
        """A window for each of that many heads, which are the model's `own` ones; None for full attention."""


@dataclass(frozen=True)
class Uniform:
    """One window for all heads, after a share of the steps with full attention."""

    window: Triple
    dense_share: float

    def windows(self, step: int, layer: int, num_steps: int, heads: int, own: slice = ALL) -> tuple[Triple, ...] | None:
        return None if step < self.dense_steps(num_steps) else (self.window,) * heads

    def dense_steps(self, num_steps: int) -> int:
        """How many steps at the beginning have full attention."""
        return math.ceil(self.dense_share * num_steps)


@dataclass(frozen=True)
class Table:
    """Windows from a file. What a file does not tell is None, and not checked.

    Attributes:
        table: (steps, layers, heads, 3), int32.
        dense_steps: steps at the beginning with full attention, whatever the table says of them.
    """

    table: NDArray[np.int32]
    dense_steps: int = 0
    family: str | None = None
    grid: Triple | None = None
    tile: Triple | None = None
    source: str = ""
    _known: dict[tuple[int, int], tuple[Triple, ...]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def steps(self) -> int:
        return int(self.table.shape[0])

    @property
    def layers(self) -> int:
        return int(self.table.shape[1])

    @property
    def heads(self) -> int:
        return int(self.table.shape[2])

    def windows(self, step: int, layer: int, num_steps: int, heads: int, own: slice = ALL) -> tuple[Triple, ...] | None:
        if step < self.dense_steps:
            return None
        found = self._known.get((step, layer))
        if found is None:
            rows = self.table[min(step, self.steps - 1), layer].tolist()
            found = self._known[step, layer] = tuple((row[0], row[1], row[2]) for row in rows)
        return found[own]

    def distinct(self) -> list[Triple]:
        """Every window that occurs after the dense steps."""
        rows = np.unique(self.table[self.dense_steps :].reshape(-1, 3), axis=0).tolist()
        return [(row[0], row[1], row[2]) for row in rows]


def read_strategy(path: Path) -> Table:
    """Read a file of windows, the published flat format or our own.

    Raises:
        InputError: the file cannot be read, is not whole, or has values that mean nothing.
    """
    what = f"the file of windows {str(path)!r}"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} cannot be read: {error}") from error
    try:
        content = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} is not whole or no JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{what} holds a {type(content).__name__}, it must be an object")
    try:
        return _own(content, path.name) if "schema" in content else _published(content, path.name)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of tiles")


def _published(content: dict[str, Any], source: str) -> Table:
    """{"step_layer_head": [t, h, w]}, as FastVideo published for HunyuanVideo and Wan."""
    if not content:
        raise InputError("it is empty")
    places = {}
    for key, value in content.items():
        parts = key.split("_")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
            raise InputError(f'the key {key!r} is not step_layer_head; our own format has a key "schema"')
        place = (int(parts[0]), int(parts[1]), int(parts[2]))
        if place in places:
            raise InputError(f"the window of {key} is given twice: a key of other digits means the same")
        places[place] = _triple(value, f"the window of {key}")
    shape = tuple(max(place[axis] for place in places) + 1 for axis in range(3))
    if math.prod(shape) != len(places):
        steps, layers, heads = shape
        raise InputError(
            f"it has {len(places)} windows, but its keys reach {steps} steps of {layers} layers of {heads} heads, "
            f"{math.prod(shape)} in all; it may be cut off"
        )
    table = np.zeros((*shape, 3), dtype=np.int32)
    table[tuple(np.array(list(places)).T)] = list(places.values())
    return Table(table, source=source)


def _own(content: dict[str, Any], source: str) -> Table:
    if content["schema"] != SCHEMA:
        raise InputError(f"its schema is {content['schema']!r}, this version reads {SCHEMA!r}")
    missing = {"model", "grid", "steps", "tile", "dense_steps", "windows"} - content.keys()
    if missing or not isinstance(content["model"], dict):
        raise InputError(f"it lacks {', '.join(sorted(missing)) or 'a model that is an object'}")
    model = content["model"]
    steps = _count(content["steps"], "steps")
    layers, heads = _count(model.get("layers"), "model.layers"), _count(model.get("heads"), "model.heads")
    dense_steps = _count(content["dense_steps"], "dense_steps", least=0)
    if dense_steps > steps:
        raise InputError(f"dense_steps is {dense_steps}, of {steps} steps in all")
    if steps * layers * heads > MOST_WINDOWS:
        raise InputError(f"{steps} steps of {layers} layers of {heads} heads are more than {MOST_WINDOWS:,} windows")
    table = np.zeros((steps, layers, heads, 3), dtype=np.int32)
    if not isinstance(content["windows"], list):
        raise InputError("windows must be a list")
    for number, rule in enumerate(content["windows"]):
        if not isinstance(rule, dict):
            raise InputError(f"rule {number} of windows is no object")
        if unknown := sorted(rule.keys() - {"steps", "layers", "heads", "window"}):
            raise InputError(f"rule {number} of windows has {unknown[0]!r}; a rule has steps, layers, heads and window")
        window = _triple(rule.get("window"), f"the window of rule {number}")
        chosen = [
            _range(rule.get(name, f"0-{size - 1}"), size, f"{name} of rule {number}")
            for name, size in (("steps", steps), ("layers", layers), ("heads", heads))
        ]
        table[np.ix_(*chosen)] = window
    uncovered = np.argwhere(table[dense_steps:, :, :, 0] == 0)
    if len(uncovered):
        step, layer, head = (int(value) for value in uncovered[0])
        raise InputError(f"no rule gives head {head} of layer {layer} a window at step {step + dense_steps}")
    tile = check_tile(_triple(content["tile"], "tile"), "tile")
    return Table(table, dense_steps, str(model.get("family")), _triple(content["grid"], "grid"), tile, source)


def _count(value: object, name: str, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST:
        shown = repr(value) if not isinstance(value, int) or value.bit_length() < 100 else "a number of many digits"
        raise InputError(f"{name} is {shown}, it must be a whole number, {least} or more and at most {MOST}")
    return value


def _triple(value: object, name: str) -> Triple:
    if not isinstance(value, list) or len(value) != 3:
        raise InputError(f"{name} is {value!r}, it must be three whole numbers: time, height, width")
    time, height, width = (_count(item, name) for item in value)
    return time, height, width


def _range(value: object, size: int, name: str) -> list[int]:
    """Numbers below size from text such as "0-3,7"."""
    if not isinstance(value, str):
        raise InputError(f'{name} is {value!r}, it must be text such as "0-3,7"')
    found: list[int] = []
    for part in value.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or max(len(first), len(last)) > 6:
            raise InputError(f'{name} is {value!r}, it must be text such as "0-3,7"')
        low, high = int(first), int(last or first)
        if low > high or high >= size:
            raise InputError(f"{name} is {value!r}, it must lie in 0-{size - 1}")
        found += range(low, high + 1)
    return found


def write_strategy(table: Table, path: Path, overwrite: bool = False) -> None:
    """Write a table in our own format, with ranges, a rule a line; the file appears when it is whole."""
    content = {
        "schema": SCHEMA,
        "model": {"family": table.family, "layers": table.layers, "heads": table.heads},
        "grid": list(table.grid or ()),
        "steps": table.steps,
        "tile": list(table.tile or ()),
        "dense_steps": table.dense_steps,
    }
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
    rules = ",\n  ".join(map(json.dumps, _rules(table)))
    with written_whole(path, overwrite) as temporary:
        temporary.write_text("{\n " + ",\n ".join([*lines, f'"windows": [\n  {rules}\n ]']) + "\n}\n", encoding="utf-8")


_Pattern = tuple[tuple[str, Triple], ...]
"""The windows of a head over the steps: for each window, at which it is used."""


def _rules(table: Table) -> list[dict[str, Any]]:
    """A rule for each window of heads, and then layers, that use the same at the same steps."""
    heads_of: dict[tuple[int, _Pattern], list[int]] = defaultdict(list)
    for layer in range(table.layers):
        for head in range(table.heads):
            heads_of[layer, _pattern(table, layer, head)].append(head)
    layers_of: dict[tuple[_Pattern, tuple[int, ...]], list[int]] = defaultdict(list)
    for (layer, pattern), heads in heads_of.items():
        layers_of[pattern, tuple(heads)].append(layer)
    return [
        {"steps": steps, "layers": _as_range(layers), "heads": _as_range(heads), "window": list(window)}
        for (pattern, heads), layers in layers_of.items()
        for steps, window in pattern
    ]


def _pattern(table: Table, layer: int, head: int) -> _Pattern:
    steps_of: dict[Triple, list[int]] = defaultdict(list)
    for step, row in enumerate(table.table[table.dense_steps :, layer, head].tolist(), start=table.dense_steps):
        steps_of[row[0], row[1], row[2]].append(step)
    return tuple((_as_range(steps), window) for window, steps in steps_of.items())


def _as_range(numbers: Iterable[int]) -> str:
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def check_windows(windows: Iterable[Triple], tiles: Triple, what: str) -> None:
    """Refuse windows that are larger than the canvas, counted in tiles.

    Raises:
        InputError: one is.
    """
    for window in windows:
        if any(size > count for size, count in zip(window, tiles, strict=True)):
            raise InputError(
                f"{what}: the window {by(window)} is larger than the canvas of {by(tiles)} tiles; the largest window "
                f"there is {by(tiles)}"
            )
