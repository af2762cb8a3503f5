"""What a region of a video shows: the shape that it is, how well, in which colour, and how it moves."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fv_shapes.colours import difference, nearest
from fv_shapes.outline import Fit, Window, coarse, fit, outlines, overlap, refine
from fv_shapes.scenes import COLOURS, DIRECTIONS, SHAPES, MovingShape
from fv_shapes.segment import Floats, Region

LEAST_OUTLINE = 0.85
"""Mean intersection over union below which a region is no shape; a circle and a square of equal area have 0.83."""
_LEAST_OUTLINE_OF_A_FRAME = 0.75
_LEAST_LEAD = 0.03
"""Lead over the next similar shape; a blob between a circle and a square has less."""
_MOST_DEBRIS = 0.05
"""Pixels elsewhere that belong to nothing, over the shape's own."""
_MOST_FRAMES = 0.9
"""Share of the frames that must show the same."""
_LEAST_VISIBLE = 0.5
"""Part of a shape that must be on the canvas for its outline to be judged."""
_STILL = 0.0025
"""Below this speed, in shorter sides of the canvas a frame, a shape stands still; rendered ones move at 0.0083+."""
_BEND = 0.03
"""Root mean square distance from a straight path at constant speed, in shorter sides, above which there is none."""
_TURN = np.radians(18)
"""Angle between the way of half a video and of the whole; a turn by 45 degrees in the middle makes 22.5."""
_FURTHEST_COLOUR = 35.0
"""Delta E from a named colour beyond which it is none."""


@dataclass(frozen=True)
class Figure:
    """A shape that a video shows; None for what cannot be told.

    Attributes:
        outline: intersection over union with the ideal `shape` at the best place and of the best size in each frame,
            the mean over the frames; of the most similar shape if `shape` is None.
        worst_outline: of the worst frame.
        softness: pixels of mixed colour along the edge, over those of the ideal shape: 1 for a perfect rendering.
        colour_distance: CIE 1976 Delta E (CIELAB, D65) to the nearest named colour, the mean over the frames.
        velocity: to the right and downwards, in shorter sides of the canvas per frame.
        radius: in shorter sides of the canvas, the median over the frames.
    """

    shape: str | None
    colour: str | None
    direction: str | None
    outline: float
    worst_outline: float
    softness: float
    colour_distance: float
    velocity: tuple[float, float]
    radius: float

    @property
    def speed(self) -> float:
        """In shorter sides of the canvas per frame."""
        return float(np.hypot(*self.velocity))


@dataclass(frozen=True)
class Measures:
    """How well a video shows one of the shapes that its prompt asks for.

    Attributes:
        wanted: the shape in the prompt.
        outline, worst_outline, softness: as in `Figure`, but with the shape that is wanted.
        colour_distance: to the colour that is wanted.
        along, across: speed in the direction that is wanted and perpendicular to it, in shorter sides per frame; for a
            shape that is to stand still, 0 and the speed.
    """

    wanted: MovingShape
    outline: float = 0.0
    worst_outline: float = 0.0
    softness: float | None = None
    colour_distance: float | None = None
    along: float | None = None
    across: float | None = None


@dataclass
class Track:
    """One region through the video."""

    region: Region
    view: Window
    debris: NDArray[np.integer]
    shorter: int
    figure: Figure = field(init=False)

    def __post_init__(self) -> None:
        self._small = coarse(self.view, self.region)
        fits = [fit(self._small, shape) for shape in SHAPES]
        overlaps = np.stack([overlap(self._small, one) for one in fits])
        means = overlaps[:, self.region.seen].mean(axis=1)
        best = int(means.argmax())
        self._best = self._fine(fits[best])
        good = (overlaps.argmax(axis=0) == best) & (self._best.overlap >= _LEAST_OUTLINE_OF_A_FRAME)
        good &= self.debris <= _MOST_DEBRIS * np.pi * self.region.radius**2
        leads = means[best] - np.delete(means, best).max() >= _LEAST_LEAD
        known = leads and self._best.mean >= LEAST_OUTLINE and good[self._best.judged].mean() >= _MOST_FRAMES
        colour, distance = steady(self.region.colour, COLOURS, _FURTHEST_COLOUR)
        path = self._best.path
        velocity, direction = _motion(path.x + self.view.left, path.y + self.view.top, good, self.shorter)
        self.figure = Figure(
            path.shape if known else None,
            colour,
            direction,
            self._best.mean,
            self._best.worst,
            self._best.softness,
            distance,
            velocity,
            float(np.median(path.radius)) / self.shorter,
        )

    def measures(self, wanted: MovingShape) -> Measures:
        """Against a shape of the prompt."""
        same = wanted.shape == self._best.path.shape
        fine = self._best if same else self._fine(fit(self._small, wanted.shape))
        towards, velocity = np.array(DIRECTIONS[wanted.direction]), np.array(self.figure.velocity)
        along = float(towards @ velocity)
        return Measures(
            wanted,
            fine.mean,
            fine.worst,
            fine.softness,
            float(difference(self.region.colour, COLOURS[wanted.colour]).mean()),
            along,
            float(np.linalg.norm(velocity - along * towards)),
        )

    def distance(self, wanted: MovingShape) -> float:
        """How unlike a shape of the prompt this is: in colour first."""
        other = difference(np.median(self.region.colour, axis=0), COLOURS[wanted.colour])
        return float(other) + 5 * (self._best.path.shape != wanted.shape)

    def _fine(self, found: Fit) -> _Fine:
        path = refine(self.view, found, self._small.factor)
        compared = outlines(self.view, path, self.debris)
        seen = self.region.seen
        enough = compared.visible >= _LEAST_VISIBLE
        judged = enough | ~seen if (enough & seen).any() else np.ones_like(seen)
        return _Fine(path, judged, compared.overlap, compared.softness)


@dataclass(frozen=True)
class _Fine:
    """A fit on the whole window, and per frame whether it is judged, intersection over union, and softness."""

    path: Fit
    judged: NDArray[np.bool_]
    overlap: Floats
    softnesses: Floats

    @property
    def mean(self) -> float:
        return float(self.overlap[self.judged].mean())

    @property
    def worst(self) -> float:
        return float(self.overlap[self.judged].min())

    @property
    def softness(self) -> float:
        return float(np.median(self.softnesses[self.judged]))


def steady(colours: Floats, table: dict[str, tuple[int, int, int]], furthest: float) -> tuple[str | None, float]:
    """The name that nearly all frames' colours, (num_frames, 3), have, and their mean distance from the nearest."""
    names, distances = nearest(np.concatenate([colours, np.median(colours, axis=0)[None]]), table, furthest)
    *each, name = names
    steady = each.count(name) >= _MOST_FRAMES * len(each)
    return (name if steady else None), float(distances[:-1].mean())


def _motion(x: Floats, y: Floats, good: NDArray[np.bool_], shorter: int) -> tuple[tuple[float, float], str | None]:
    """Velocity, and its name if the path is straight and evenly run through, in both halves of the video."""
    used = good if good.sum() >= max(4, len(good) // 3) else np.ones_like(good)
    times = np.flatnonzero(used)
    places = np.stack([x[used], y[used]], axis=1).astype(np.float64) / shorter
    if len(times) < 2:
        return (0.0, 0.0), None
    slope, start = np.polyfit(times, places, 1)
    velocity = (float(slope[0]), float(slope[1]))
    bend = np.sqrt(np.square(places - (start + slope * times[:, None])).sum(axis=1).mean())
    if bend > _BEND:
        return velocity, None
    half = len(times) // 2
    halves = [np.polyfit(times[part], places[part], 1)[0] for part in (slice(half), slice(half, None)) if half >= 2]
    speed = float(np.hypot(*velocity))
    if speed < _STILL:
        return velocity, "still" if all(np.hypot(*one) < 2 * _STILL for one in halves) else None
    if not all(_along(one, slope) for one in halves):
        return velocity, None
    return velocity, max(DIRECTIONS, key=lambda name: float(np.dot(DIRECTIONS[name], slope)))


def _along(part: NDArray[np.float64], whole: NDArray[np.float64]) -> bool:
    """Whether a velocity has about the direction of another, and not less than 0.4 of its speed."""
    along = float(part @ whole) / float(np.hypot(*whole))
    return bool(along > 0.4 * np.hypot(*whole) and along > np.cos(_TURN) * np.hypot(*part))
