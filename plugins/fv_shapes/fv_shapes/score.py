"""Read a scene off the frames of a video, measure it, and say which of a prompt's wishes came true."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from fv_shapes.captions import parse
from fv_shapes.outline import Window, window
from fv_shapes.scenes import BACKGROUNDS, MovingShape, Scene
from fv_shapes.segment import eroded, foreground, grounds, planes, regions
from fv_shapes.tracks import Figure, Measures, Track, steady

ATTRIBUTES = ("shape", "colour", "direction", "background")

_FURTHEST_BACKGROUND = 25.0
"""Delta E from a named background beyond which it is none."""


@dataclass(frozen=True)
class Reading:
    """What a video shows: one figure for each colour that is no background, at most two, the largest first."""

    figures: tuple[Figure, ...]
    background: str | None
    background_distance: float


@dataclass(frozen=True)
class Judgement:
    """A video held against its prompt.

    Attributes:
        right: for shape, colour, direction and background, whether the video shows what the prompt says; of two shapes
            both must be right. Empty if the prompt cannot be read.
        measures: for each shape that the prompt asks for, in its order.
        reading: what the video shows.
        not_judged: why not, if the prompt cannot be read.
    """

    right: dict[str, bool]
    measures: tuple[Measures, ...]
    reading: Reading
    not_judged: str | None = None


def score(frames: NDArray[np.generic], prompt: str) -> dict[str, bool] | None:
    """Compare a video with its prompt.

    Args:
        frames: (num_frames, height, width, 3), uint8 or floats in 0…1.

    Returns:
        For shape, colour, direction and background, whether the video shows what the prompt says; None if the prompt
        cannot be read, so that nothing can be judged.

    Raises:
        ValueError: the frames have another form.
    """
    return judge(frames, prompt).right or None


def read(frames: NDArray[np.generic]) -> Reading:
    """Read the scene off a video; frames as in `score`."""
    return _Video(frames).reading


def judge(frames: NDArray[np.generic], prompt: str) -> Judgement:
    """Compare a video with its prompt, and measure it; frames as in `score`."""
    video = _Video(frames)
    try:
        scene = parse(prompt)
    except ValueError as error:
        return Judgement({}, (), video.reading, str(error))
    return _judgement(video, scene)


def _judgement(video: _Video, scene: Scene) -> Judgement:
    matched = _matched(scene.shapes, video.tracks)
    right = {
        name: len(matched) == len(scene.shapes)
        and all(getattr(track.figure, name) == getattr(wanted, name) for wanted, track in matched)
        for name in ("shape", "colour", "direction")
    }
    right["shape"] &= len(video.tracks) == len(scene.shapes)
    found = video.reading.background
    right["background"] = found is not None and scene.background in (None, found)
    of = {id(wanted): track for wanted, track in matched}
    measures = tuple(of[id(one)].measures(one) if id(one) in of else Measures(one) for one in scene.shapes)
    return Judgement(right, measures, video.reading)


def _matched(wanted: tuple[MovingShape, ...], tracks: list[Track]) -> list[tuple[MovingShape, Track]]:
    """The pairs of wanted and found shapes that differ least in colour, then in shape."""
    count = min(len(wanted), len(tracks))
    ways = [
        list(zip(some, others, strict=True))
        for some in permutations(wanted, count)
        for others in permutations(tracks, count)
    ]
    return min(ways, key=lambda way: sum(track.distance(one) for one, track in way))


class _Video:
    """The frames taken apart."""

    def __init__(self, frames: NDArray[np.generic]) -> None:
        pixels = planes(frames)
        ground = grounds(pixels)
        differs = foreground(pixels, ground)
        found = regions(pixels, ground, differs)
        views = [window(pixels, ground, one, [other for other in found if other is not one]) for one in found]
        debris = _debris(eroded(differs), views)
        shorter = min(pixels.shape[2:])
        self.tracks = [Track(region, view, debris, shorter) for region, view in zip(found, views, strict=True)]
        background, distance = steady(ground.T, BACKGROUNDS, _FURTHEST_BACKGROUND)
        self.reading = Reading(tuple(track.figure for track in self.tracks), background, distance)


def _debris(core: NDArray[np.bool_], views: list[Window]) -> NDArray[np.integer]:
    """Pixels per frame that are no background and in no window."""
    for view in views:
        side = view.coverage.shape[1]
        for frame, left, top in zip(core, view.left, view.top, strict=True):
            frame[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = False
    return np.asarray(core.sum(axis=(1, 2)))


def wilson(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927), 95 % by default."""
    middle = (right + z * z / 2) / (count + z * z)
    half = z / (count + z * z) * math.sqrt(right * (count - right) / count + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)
