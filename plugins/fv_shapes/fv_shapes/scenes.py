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
class Scene:
    """One shape on a plain background, moving in a straight line at constant speed.

    `offset` moves the middle of the path off the canvas centre, and `speed` and `scale` vary the motion and the
    shape a little around their usual values, so that no two scenes of one caption are the same.
    """

    shape: str
    colour: str
    direction: str
    background: str
    size: str = "medium"
    offset: tuple[float, float] = (0.0, 0.0)
    speed: float = 1.0
    scale: float = 1.0


def random_scene(rng: Random) -> Scene:
    """Draw every attribute uniformly (medium size half of the time) and jitter the rest."""
    return Scene(
        shape=rng.choice(SHAPES),
        colour=rng.choice(tuple(COLOURS)),
        direction=rng.choice(tuple(DIRECTIONS)),
        background=rng.choice(tuple(BACKGROUNDS)),
        size=rng.choice(("medium", "medium", "small", "large")),
        offset=(rng.uniform(-0.08, 0.08), rng.uniform(-0.08, 0.08)),
        speed=rng.uniform(0.85, 1.15),
        scale=rng.uniform(0.94, 1.06),
    )
