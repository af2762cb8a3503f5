"""What a scene can be: the closed vocabulary that the model was trained on and the checker reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

SHAPES = ("circle", "square", "triangle", "cross")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "green": (30, 160, 60),
    "blue": (35, 75, 225),
    "yellow": (250, 220, 40),
    "purple": (135, 45, 175),
    "orange": (250, 130, 20),
    "cyan": (45, 210, 225),
    "pink": (250, 130, 185),
}

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "black": (10, 10, 10),
    "gray": (128, 128, 128),
    "brown": (95, 60, 35),
}

_DIAGONAL = math.sqrt(0.5)

DIRECTIONS: dict[str, tuple[float, float]] = {
    "still": (0.0, 0.0),
    "right": (1.0, 0.0),
    "down-right": (_DIAGONAL, _DIAGONAL),
    "down": (0.0, 1.0),
    "down-left": (-_DIAGONAL, _DIAGONAL),
    "left": (-1.0, 0.0),
    "up-left": (-_DIAGONAL, -_DIAGONAL),
    "up": (0.0, -1.0),
    "up-right": (_DIAGONAL, -_DIAGONAL),
}
"""Unit vectors in image coordinates: x to the right, y downwards."""

SIZES: dict[str, float] = {"small": 0.72, "medium": 1.0, "large": 1.35}
"""Scale of the shape; a caption that names no size means medium."""


@dataclass(frozen=True)
class MovingShape:
    """One shape that moves in a straight line at constant speed.

    `offset` moves the middle of the path off the canvas centre, in shorter sides of the canvas; `speed` and `scale` are
    factors on the usual ones. They vary a little, so that no two scenes of one caption are the same.
    """

    shape: str
    colour: str
    direction: str
    size: str = "medium"
    offset: tuple[float, float] = (0.0, 0.0)
    speed: float = 1.0
    scale: float = 1.0


@dataclass(frozen=True)
class Scene:
    """One shape or two, of different colours, on a plain background; None is any."""

    shapes: tuple[MovingShape, ...]
    background: str | None


SPEED = 1.0 / 72
"""Shorter sides of the canvas that a shape of speed 1 moves in a frame."""

RADIUS = 23.0 / 128
"""Radius of a medium shape on a canvas of 128x128, in shorter sides."""

_PAIR_SCALE, _PAIR_SPEED = 0.75, 0.7
"""Two shapes are smaller and slower than one, so that both have room."""
_PAIR_REACH = 0.3
_PAIR_EDGE = 0.42
"""How far the centre of one of two may be from the canvas centre, in its first and last frame."""
_FURTHEST = 1.2
"""The greatest distance of an outline from its centre, in radii."""
_GAP = 0.03
_LONGEST = 45
"""Frames of the longest video; two shapes keep apart for as long."""


def random_scene(rng: Random) -> Scene:
    """Draw one shape: every attribute uniformly (medium size half of the time), the rest jittered."""
    return Scene((_random_shape(rng, rng.choice(tuple(COLOURS)), 0.08),), rng.choice(tuple(BACKGROUNDS)))


def random_pair(rng: Random) -> Scene:
    """Draw two shapes of different colours that never touch."""
    while True:
        colours = rng.sample(tuple(COLOURS), 2)
        shapes = tuple(_random_shape(rng, colour, _PAIR_REACH, _PAIR_SCALE, _PAIR_SPEED) for colour in colours)
        if all(_stays_inside(shape) for shape in shapes) and _keep_apart(*shapes):
            return Scene(shapes, rng.choice(tuple(BACKGROUNDS)))


def centre(shape: MovingShape, frames_from_middle: float) -> tuple[float, float]:
    """The shape's centre, from that of the canvas, in shorter sides."""
    x, y = DIRECTIONS[shape.direction]
    travelled = frames_from_middle * SPEED * shape.speed
    return shape.offset[0] + x * travelled, shape.offset[1] + y * travelled


def _random_shape(rng: Random, colour: str, reach: float, scale: float = 1.0, speed: float = 1.0) -> MovingShape:
    return MovingShape(
        shape=rng.choice(SHAPES),
        colour=colour,
        direction=rng.choice(tuple(DIRECTIONS)),
        size=rng.choice(("medium", "medium", "small", "large")),
        offset=(rng.uniform(-reach, reach), rng.uniform(-reach, reach)),
        speed=speed * rng.uniform(0.85, 1.15),
        scale=scale * rng.uniform(0.94, 1.06),
    )


def _stays_inside(shape: MovingShape) -> bool:
    ends = (centre(shape, sign * (_LONGEST - 1) / 2) for sign in (-1, 1))
    return all(max(map(abs, end)) <= _PAIR_EDGE for end in ends)


def _keep_apart(one: MovingShape, other: MovingShape) -> bool:
    least = _FURTHEST * RADIUS * sum(SIZES[shape.size] * shape.scale for shape in (one, other)) + _GAP
    moments = (frame - (_LONGEST - 1) / 2 for frame in range(_LONGEST))
    return all(math.dist(centre(one, moment), centre(other, moment)) >= least for moment in moments)
