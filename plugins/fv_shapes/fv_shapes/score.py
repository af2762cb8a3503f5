"""Read a scene off the frames of a video, and say which of a prompt's wishes came true."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from fv_shapes.captions import parse
from fv_shapes.render import shape_coverage
from fv_shapes.scenes import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES

ATTRIBUTES = ("shape", "colour", "direction", "background")

_STILL = 0.0025
"""Below this speed, in shorter sides of the canvas a frame, a shape stands still; rendered ones move at 0.0118+."""
_MOST_OF_THE_CANVAS = 0.5
"""A region larger than this is noise; the largest rendered shape covers a third."""
_LEAST_OVERLAP = 0.6
"""Intersection over union with the best outline below which a region is no shape at all."""


@dataclass(frozen=True)
class Reading:
    """What a video shows; None where nothing can be made out.

    `overlap` is the mean intersection over union of the region and the outline of `shape`, a measure of its quality.
    """

    shape: str | None
    colour: str | None
    direction: str | None
    background: str
    overlap: float


def score(frames: NDArray[np.generic], prompt: str) -> dict[str, bool]:
    """Compare a video with its prompt.

    Args:
        frames: (num_frames, height, width, 3), uint8 or floats in 0…1.

    Returns:
        For shape, colour, direction and background, whether the video shows what the prompt says.

    Raises:
        ValueError: the prompt names no such scene, or the frames have another form.
    """
    wanted, found = asdict(parse(prompt)), asdict(read(frames))
    return {name: wanted[name] == found[name] for name in ATTRIBUTES}


def read(frames: NDArray[np.generic]) -> Reading:
    """Read the scene off a video; frames as in `score`."""
    pixels = _as_float(frames)
    border = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1)
    ground = np.median(border.reshape(-1, 3), axis=0)
    background = _nearest(ground, BACKGROUNDS)
    distance = np.abs(pixels - ground).max(axis=-1)
    contrast = float(np.quantile(distance, 0.995))
    if contrast < 20:
        return Reading(None, None, None, background, 0.0)
    region = distance > contrast / 2
    seen = region.sum(axis=(1, 2)) >= 12
    if seen.sum() < max(2, len(pixels) // 2) or region.mean() > _MOST_OF_THE_CANVAS:
        return Reading(None, None, None, background, 0.0)
    colour = _nearest(np.median(pixels[distance > 0.8 * contrast], axis=0), COLOURS)
    shape, overlap = _shape(region[seen])
    return Reading(shape, colour, _direction(region, seen), background, overlap)


def _as_float(frames: NDArray[np.generic]) -> NDArray[np.float32]:
    if frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be (num_frames, height, width, 3), not {frames.shape}")
    return frames.astype(np.float32) * (1.0 if frames.dtype == np.uint8 else 255.0)


def _nearest(colour: NDArray[np.floating], table: dict[str, tuple[int, int, int]]) -> str:
    return min(table, key=lambda name: float(np.square(np.asarray(table[name]) - colour).sum()))


def _centres(region: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre of gravity of each frame's region, in pixels."""
    _, height, width = region.shape
    weight = region.sum(axis=(1, 2))
    x = (region.sum(axis=1) * (np.arange(width) + 0.5)).sum(axis=1) / weight
    y = (region.sum(axis=2) * (np.arange(height) + 0.5)).sum(axis=1) / weight
    return x, y


def _direction(region: NDArray[np.bool_], seen: NDArray[np.bool_]) -> str:
    """Fit a straight line to the path of the centre; regions cut by the border would bend it and are left out."""
    whole = seen & ~(region[:, 0].any(1) | region[:, -1].any(1) | region[:, :, 0].any(1) | region[:, :, -1].any(1))
    used = whole if whole.sum() >= max(4, len(seen) // 3) else seen
    x, y = _centres(region[used])
    times = np.flatnonzero(used)
    velocity = np.array([np.polyfit(times, x, 1)[0], np.polyfit(times, y, 1)[0]])
    if np.hypot(*velocity) < _STILL * min(region.shape[1:]):
        return "still"
    return max(DIRECTIONS, key=lambda name: float(np.dot(DIRECTIONS[name], velocity)))


def _shape(region: NDArray[np.bool_]) -> tuple[str | None, float]:
    """The outline that overlaps most with the region, moved and scaled to fit it."""
    _, height, width = region.shape
    keep = np.unique(np.linspace(0, len(region) - 1, 9).round().astype(int))
    region = region[keep]
    x, y = _centres(region)
    extent = float(np.sqrt(np.median(region.sum(axis=(1, 2)))))
    overlaps = {}
    for shape in SHAPES:
        radius = extent * _radius_per_root_area(shape)
        shift = radius * _centre_shift(shape)
        best = 0.0
        for scale in (0.92, 1.0, 1.08):
            outline = shape_coverage(
                shape, radius * scale, x.astype(np.float32), (y - shift).astype(np.float32), height, width
            )
            inside = outline > 0.5
            best = max(best, float((inside & region).sum() / max(1, (inside | region).sum())))
        overlaps[shape] = best
    winner = max(overlaps, key=lambda name: overlaps[name])
    return (winner if overlaps[winner] >= _LEAST_OVERLAP else None), overlaps[winner]


def _reference(shape: str) -> NDArray[np.bool_]:
    middle = np.array([128.0], np.float32)
    return shape_coverage(shape, 64.0, middle, middle, 256, 256) > 0.5


def _radius_per_root_area(shape: str) -> float:
    return 64.0 / float(np.sqrt(_reference(shape).sum()))


def _centre_shift(shape: str) -> float:
    """How far below a shape's nominal centre its centre of gravity lies, in radii."""
    return float((_centres(_reference(shape))[1][0] - 128.0) / 64.0)
