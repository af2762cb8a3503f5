"""Random scenes as a table of numbers, and their frames rendered from it where the training runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from random import Random

import torch
from fv_shapes.captions import caption
from fv_shapes.render import shape_radius
from fv_shapes.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, SIZES, SPEED, Scene, random_pair, random_scene

_MOST_SHAPES = 2
_CHUNK = 500


@dataclass(frozen=True)
class Scenes:
    """Scenes of one draw.

    Attributes:
        table: (scenes, 2, 13) float32: per shape whether it is there, kind, radius, offset, velocity, colour, ground.
        captions: for each scene as many captions as were asked for.
    """

    table: torch.Tensor
    captions: list[list[str]]


class Drawing:
    """Scenes that are drawn in other processes meanwhile; the same ones for the same seed."""

    def __init__(self, seed: int, count: int, pairs: float, captions: int, pool: ProcessPoolExecutor) -> None:
        self._parts: list[Future[tuple[list[list[list[float]]], list[list[str]]]]] = [
            pool.submit(_draw, seed * 100_003 + start, min(_CHUNK, count - start), pairs, captions)
            for start in range(0, count, _CHUNK)
        ]

    def result(self) -> Scenes:
        """Wait for them."""
        parts = [part.result() for part in self._parts]
        table = torch.tensor([row for rows, _ in parts for row in rows], dtype=torch.float32)
        return Scenes(table, [texts for _, captions in parts for texts in captions])


def drawing_pool() -> ProcessPoolExecutor:
    """Processes for `Drawing`; forked, as none of them touches a GPU and each would import torch anew."""
    return ProcessPoolExecutor(min(12, os.cpu_count() or 1), get_context("fork"))


def table_of(scenes: Sequence[Scene]) -> torch.Tensor:
    """The table of scenes, as `Scenes` describes it."""
    return torch.tensor([_rows(scene) for scene in scenes], dtype=torch.float32)


def render_clips(table: torch.Tensor, frames: int, side: int) -> torch.Tensor:
    """What `fv_shapes.render.render` draws, for many scenes at once: (scenes, 3, frames, side, side) in -1…1."""
    there, kind, scale, *motion = (one[..., None] for one in table[..., :7].unbind(-1))
    offset_x, offset_y, velocity_x, velocity_y = motion
    moment = torch.arange(frames, device=table.device) - (frames - 1) / 2
    grid = torch.arange(side, device=table.device) + 0.5
    x = grid.view(1, 1, 1, 1, -1) - side * (0.5 + offset_x + velocity_x * moment)[..., None, None]
    y = grid.view(1, 1, 1, -1, 1) - side * (0.5 + offset_y + velocity_y * moment)[..., None, None]
    radius, kind, there = (one[..., None, None] for one in (scale * shape_radius(side), kind, there))
    coverage = (there * (0.5 - _distance(kind, x, y, radius)).clamp(0, 1))[:, :, None]
    colours, background = table[..., 7:10, None, None, None], table[:, 0, 10:13, None, None, None]
    clips = background.expand(-1, -1, frames, side, side)
    for index in range(_MOST_SHAPES):
        clips = clips + coverage[:, index] * (colours[:, index] - clips)
    return torch.round(clips) / 127.5 - 1


def _distance(kind: torch.Tensor, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Signed distances as in `fv_shapes.render`, of the kind of each shape."""
    across, along = x.abs(), y.abs()
    circle = (x.square() + y.square()).sqrt() - radius
    square = torch.maximum(across, along) - 0.89 * radius
    triangle = torch.maximum(across * 0.8660254 - y * 0.5, y) - 0.62 * radius
    arm, reach = 0.36 * radius, 1.08 * radius
    cross = torch.minimum(torch.maximum(across - reach, along - arm), torch.maximum(across - arm, along - reach))
    kinds = (circle, square, triangle, cross)
    result = kinds[0]
    for number in range(1, len(kinds)):
        result = torch.where(kind == number, kinds[number], result)
    return result


def _rows(scene: Scene) -> list[list[float]]:
    rows = []
    for shape in scene.shapes:
        x, y = DIRECTIONS[shape.direction]
        speed = SPEED * shape.speed
        path = (SIZES[shape.size] * shape.scale, *shape.offset, x * speed, y * speed)
        colours = (*COLOURS[shape.colour], *BACKGROUNDS[scene.background or "white"])
        rows.append([1.0, SHAPES.index(shape.shape), *path, *colours])
    return rows + [[0.0] * len(rows[0])] * (_MOST_SHAPES - len(rows))


def _draw(seed: int, count: int, pairs: float, captions: int) -> tuple[list[list[list[float]]], list[list[str]]]:
    rng = Random(seed)
    scenes = [(random_pair if rng.random() < pairs else random_scene)(rng) for _ in range(count)]
    return [_rows(scene) for scene in scenes], [[caption(scene, rng) for _ in range(captions)] for scene in scenes]
