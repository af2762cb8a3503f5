"""Tell the shapes of a video from its background and from each other, by colour alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fv_shapes.colours import nearest_by_bytes

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_FOREGROUND = 45.0
"""RGB distance (0 to 442) from the background that makes a pixel part of something; named colours are 96+ away."""
_FLAT = 40.0
"""RGB distance to its neighbours below which a pixel is no edge; noise of 8 in 255 makes 30."""
_ANOTHER_COLOUR = 46.0
"""RGB distance of two shapes' colours; named ones are 92 or more apart."""
_OFF_THE_LINE = 30.0
"""RGB distance from all mixtures of a shape and the background: what is closer may be a soft edge."""
_LEAST_SHARE = 0.05
"""Share of flat pixels that a second shape has; the smallest beside the largest has 0.1."""
_MOST_OF_THE_CANVAS = 0.5
"""A foreground larger than this is noise; the largest rendered shape covers a third."""
_LEAST_PIXELS = 12
_SAMPLED_FRAMES = 12


@dataclass(frozen=True)
class Region:
    """Where something of one colour is in each frame.

    Attributes:
        seen: (num_frames,), whether anything is there.
        x, y: (num_frames,), its middle in pixels; where it is not seen, that of the frames around.
        colour: (num_frames, 3), its median in 0…255; where it is not seen, that of the video.
        radius: of a disc of its area, in pixels; the area is the 0.9-quantile over the frames.
    """

    seen: Mask
    x: Floats
    y: Floats
    colour: Floats
    radius: float


def planes(frames: NDArray[np.generic]) -> Floats:
    """Frames as (3, num_frames, height, width) in 0…255."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be (num_frames, height, width, 3), not {frames.shape}")
    pixels = frames.transpose(3, 0, 1, 2).astype(np.float32, order="C")
    if frames.dtype != np.uint8:
        np.nan_to_num(pixels, copy=False, posinf=1.0, neginf=0.0)
        pixels *= 255.0
    return pixels


def grounds(pixels: Floats) -> Floats:
    """The background of each frame, (3, num_frames): the median along the border."""
    border = [pixels[:, :, 0], pixels[:, :, -1], pixels[:, :, :, 0], pixels[:, :, :, -1]]
    return np.median(np.concatenate(border, axis=2), axis=2).astype(np.float32)


def foreground(pixels: Floats, ground: Floats) -> Mask:
    """Which pixels differ from the background, (num_frames, height, width)."""
    return _square_distance(pixels, ground) > _FOREGROUND**2


def regions(pixels: Floats, ground: Floats, differs: Mask) -> list[Region]:
    """The regions of the one or two colours of a video that are no background; none if nothing can be made out."""
    if differs.mean() > _MOST_OF_THE_CANVAS:
        return []
    colours = _colours(pixels, ground, differs)
    if len(colours) < 2:
        masks = [differs]
    else:
        near = min(60.0, float(np.linalg.norm(colours[0] - colours[1])) / 2)
        masks = [_square_distance(pixels, colour[:, None]) < near**2 for colour in colours]
    found = [_region(pixels, mask) for mask in masks]
    return [region for region in found if region is not None]


def eroded(mask: Mask) -> Mask:
    """Pixels all of whose 3x3 neighbours are in the mask too: no thin edges, no specks."""
    inner = mask.copy()
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    rows = inner.copy()
    inner[:, :, 1:] &= rows[:, :, :-1]
    inner[:, :, :-1] &= rows[:, :, 1:]
    return inner


def _square_distance(pixels: Floats, colour: Floats) -> Floats:
    """Squared RGB distance to a colour of (3, num_frames) or (3, 1): (num_frames, height, width)."""
    total: Floats | None = None
    for plane, value in zip(pixels, colour, strict=True):
        difference = plane - value[:, None, None]
        difference *= difference
        total = difference if total is None else np.add(total, difference, out=total)
    assert total is not None
    return total


def _colours(pixels: Floats, ground: Floats, differs: Mask) -> list[Floats]:
    """The colour of the largest thing, and of a second beside it in most of the frames."""
    chosen = np.unique(np.linspace(0, differs.shape[0] - 1, _SAMPLED_FRAMES).round().astype(int))
    sample = pixels[:, chosen]
    flat = differs[chosen] & _flat(sample)
    if flat.sum() < _LEAST_PIXELS:
        return []
    values = sample[:, flat].T
    times = np.nonzero(flat)[0]
    first = _median_of_largest(values)
    middle = np.median(ground, axis=1).astype(np.float32)
    other = (np.linalg.norm(values - first, axis=1) > _ANOTHER_COLOUR) & (
        _distance_from_mixtures(values, middle, first) > _OFF_THE_LINE
    )
    if other.mean() < _LEAST_SHARE:
        return [first]
    second = _median_of_largest(values[other])
    is_second = np.linalg.norm(values - second, axis=1) < np.linalg.norm(values - first, axis=1)
    counts = np.stack([np.bincount(times[which], minlength=len(chosen)) for which in (~is_second, is_second)])
    there = counts >= 4
    return [first, second] if there.all(axis=0).sum() > there.any(axis=0).sum() / 2 else [first]


def _flat(pixels: Floats) -> Mask:
    flat = np.ones(pixels.shape[1:], bool)
    across = np.square(np.diff(pixels, axis=3)).sum(axis=0) < _FLAT**2
    along = np.square(np.diff(pixels, axis=2)).sum(axis=0) < _FLAT**2
    flat[:, :, 1:] &= across
    flat[:, :, :-1] &= across
    flat[:, 1:] &= along
    flat[:, :-1] &= along
    return flat


def _median_of_largest(values: Floats) -> Floats:
    """The median of those values, (count, 3), that have the commonest nearest name."""
    names = nearest_by_bytes(values)
    commonest = values[names == np.bincount(names).argmax()]
    return np.asarray(np.median(commonest, axis=0), np.float32)


def _distance_from_mixtures(values: Floats, one: Floats, other: Floats) -> Floats:
    line = other - one
    share = np.clip((values - one) @ line / float(line @ line), 0.0, 1.0)
    return np.asarray(np.linalg.norm(values - one - share[:, None] * line, axis=1), np.float32)


def _region(pixels: Floats, mask: Mask) -> Region | None:
    core = eroded(mask)
    area = mask.sum(axis=(1, 2))
    seen = core.sum(axis=(1, 2)) >= _LEAST_PIXELS
    if seen.sum() < max(2, len(seen) // 2):
        return None
    times = np.flatnonzero(seen)
    x = _middle(core[seen].sum(axis=1))
    y = _middle(core[seen].sum(axis=2))
    colour = np.stack([np.median(pixels[:, time][:, core[time]], axis=1) for time in times])
    everywhere = np.tile(np.median(colour, axis=0), (len(seen), 1))
    everywhere[times] = colour
    every = np.arange(len(seen))
    return Region(
        seen,
        np.interp(every, times, x).astype(np.float32),
        np.interp(every, times, y).astype(np.float32),
        everywhere.astype(np.float32),
        float(np.sqrt(np.quantile(area[seen], 0.9) / np.pi)),
    )


def _middle(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """The place that halves each row of counts, in pixels."""
    below = np.cumsum(counts, axis=1)
    half = below[:, -1:] / 2
    return np.asarray((below < half).sum(axis=1) + 0.5)
