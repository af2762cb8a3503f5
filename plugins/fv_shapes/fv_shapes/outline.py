"""Fit ideal shapes to a region of a video, frame by frame, and measure how far the outlines differ.

A pixel's coverage is where it lies between the background's colour and the shape's. The ideal shape's place and radius
are fitted to the coverages by least squares. The outlines are compared where the coverage, interpolated bilinearly on
a grid several times finer, passes one half; the ideal shape goes the same way, so that a perfect rendering has 1. That
is exact to a small part of a pixel, and neither noise nor a blur that keeps the outline in place changes it, as they
would change a sum over coverages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fv_shapes.render import signed_distance
from fv_shapes.segment import Floats, Mask, Region, eroded

_WINDOW = 1.7
"""Half the window's side, in radii of a disc of the region's area; the tip of a triangle is 1.65 from its middle."""
_COARSE_RADIUS = 8.0
_FINE_RADIUS = 45.0
_FOREIGN = 55.0
"""RGB distance from all mixtures of the shape's and the background's colour that makes a pixel part of neither."""
_COARSE_RAMPS = (4.0, 3.0, 2.0, 1.5)
_FINE_RAMPS = (1.5, 1.0)
_CUT = 0.02
"""Part of a shape beyond the border that makes its radius uncertain."""
_MIXED = 0.15
_PHASES = (0.618034, 0.754878)
"""Shifts of the fine grid from frame to frame, so that an edge that stands still is not always rounded the same way."""
_REFERENCE = 64.0


@dataclass(frozen=True)
class Window:
    """The surroundings of a region.

    Attributes:
        coverage: (num_frames, side, side), 0 for the background and 1 for the shape.
        inside: same form, 1 on the canvas and 0 beyond.
        foreign: same form, pixels of another colour.
        left, top: (num_frames,), of the window on the canvas.
        factor: pixels of the canvas per pixel of the window along a side.
    """

    coverage: Floats
    inside: Floats
    foreign: Mask
    left: NDArray[np.intp]
    top: NDArray[np.intp]
    factor: int = 1


@dataclass(frozen=True)
class Fit:
    """An ideal shape in each frame: centres and radii in pixels of the window, (num_frames,)."""

    shape: str
    x: Floats
    y: Floats
    radius: Floats

    def distance(self, side: int) -> NDArray[np.floating]:
        """Signed distance to its outline, (num_frames, side, side), in pixels of the window."""
        at = np.arange(side, dtype=np.float32) + 0.5
        x, y = at - self.x[:, None], at - self.y[:, None]
        return signed_distance(self.shape, x[:, None, :], y[:, :, None], self.radius[:, None, None])


def window(pixels: Floats, ground: Floats, region: Region, others: Sequence[Region]) -> Window:
    """Cut out the surroundings of a region; what is closer to another region counts as background."""
    _, frames, height, width = pixels.shape
    factor = max(1, round(region.radius / _COARSE_RADIUS))
    half = factor * int(np.ceil((_WINDOW * region.radius + 3) / factor))
    left, top = (np.rint(middle).astype(int) - half for middle in (region.x, region.y))
    columns, rows = (start[:, None] + np.arange(2 * half) for start in (left, top))
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    at = (np.arange(frames)[:, None, None], rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None])
    line = region.colour.T - ground
    length = np.maximum(np.square(line).sum(axis=0), 1.0)[:, None, None]
    dot = square = np.zeros((), np.float32)
    for plane, base, step in zip(pixels, ground, line, strict=True):
        difference = plane[at] - base[:, None, None]
        dot = dot + difference * step[:, None, None]
        square = square + difference * difference
    share = dot / length
    coverage = share.clip(0.0, 1.0)
    off_the_line = square + length * coverage * (coverage - 2 * share)
    theirs = _closer_to_others(region, others, columns, rows)
    foreign = _opened((off_the_line > _FOREIGN**2) & inside & ~theirs)
    coverage[foreign | theirs] = 0.0
    return Window(coverage, inside.astype(np.float32), foreign, left, top)


def coarse(view: Window, region: Region) -> Window:
    """The window at a resolution where the region's radius is about 8 pixels."""
    factor = max(1, round(region.radius / _COARSE_RADIUS))
    if factor == 1:
        return view
    frames, side, _ = view.coverage.shape
    blocks = (frames, side // factor, factor, side // factor, factor)
    inside = view.inside.reshape(blocks).mean(axis=(2, 4))
    coverage = (view.coverage * view.inside).reshape(blocks).mean(axis=(2, 4)) / np.maximum(inside, 1e-6)
    return replace(view, coverage=coverage, inside=inside, factor=factor)


def fit(view: Window, shape: str) -> Fit:
    """Fit a shape to a coarse window from nothing, by Gauss-Newton with ramps of falling width for an edge."""
    weight = view.coverage * view.inside
    side = weight.shape[1]
    at = np.arange(side, dtype=np.float32) + 0.5
    area = np.maximum(weight.sum(axis=(1, 2)), 1e-3)
    x, y = (weight.sum(axis=1) @ at) / area, (weight.sum(axis=2) @ at) / area
    per_root_area, shift = _MOMENTS[shape]
    radius = np.full(len(area), per_root_area * np.sqrt(np.quantile(area, 0.75)), np.float32)
    found = Fit(shape, x, (y - shift * radius).astype(np.float32), radius)
    for ramp in _COARSE_RAMPS:
        found = _step(view, found, ramp)
    return found


def refine(view: Window, found: Fit, factor: int) -> Fit:
    """Carry a fit from a coarse window over to the whole one, and fit it again there."""
    found = replace(found, x=found.x * factor, y=found.y * factor, radius=found.radius * factor)
    for ramp in _FINE_RAMPS:
        found = _step(view, found, ramp)
    return found


def overlap(view: Window, found: Fit) -> Floats:
    """Per frame, the sum of the lesser of both coverages over that of the greater, on the canvas: for a coarse look."""
    ideal = np.clip(0.5 - found.distance(view.coverage.shape[1]), 0.0, 1.0)
    least = (np.minimum(ideal, view.coverage) * view.inside).sum(axis=(1, 2))
    most = (np.maximum(ideal, view.coverage) * view.inside).sum(axis=(1, 2))
    return np.asarray(least / np.maximum(most, 1e-6), np.float32)


@dataclass(frozen=True)
class Outlines:
    """A region's outline held against that of a fit, (num_frames,).

    Attributes:
        overlap: intersection over union of what they enclose on the canvas.
        visible: the part of the ideal shape that lies on the canvas.
        softness: pixels of mixed colour along the edge, over those of the ideal shape: 1 for a perfect rendering.
    """

    overlap: Floats
    visible: Floats
    softness: Floats


def outlines(view: Window, found: Fit, debris: NDArray[np.integer]) -> Outlines:
    """Compare outlines; `debris`, (num_frames,), is of pixels elsewhere that belong to nothing and join the union."""
    side = view.coverage.shape[1]
    fineness = int(np.clip(np.ceil(_FINE_RADIUS / max(1.0, float(np.median(found.radius)))), 1, 4))
    distance = found.distance(side)
    ideal = np.clip(0.5 - distance, 0.0, 1.0)
    every = np.arange(len(distance))
    rows, columns = (_fine_grid(side, fineness, every * step % 1) for step in _PHASES)
    down, across = _interpolation(rows, side), _interpolation(columns, side).transpose(0, 2, 1)
    wanted, there = (down @ one @ across > 0.5 for one in (ideal, view.coverage))
    inside = view.inside[every[:, None, None], rows.astype(int)[:, :, None], columns.astype(int)[:, None]] > 0
    whole = wanted.sum(axis=(1, 2))
    wanted &= inside
    there &= inside
    strange = (view.foreign & (distance > 0)).sum(axis=(1, 2)) + debris
    union = (wanted | there).sum(axis=(1, 2)) + strange * fineness**2
    near = (np.abs(distance) < found.radius[:, None, None] / 3) & (view.inside > 0)
    mixed, ideally = ((near & _mixed(one)).sum(axis=(1, 2)) for one in (view.coverage, ideal))
    return Outlines(
        ((wanted & there).sum(axis=(1, 2)) / np.maximum(union, 1)).astype(np.float32),
        (wanted.sum(axis=(1, 2)) / np.maximum(whole, 1)).astype(np.float32),
        (mixed / np.maximum(ideally, 1)).astype(np.float32),
    )


def _mixed(coverage: Floats) -> Mask:
    return (coverage > _MIXED) & (coverage < 1 - _MIXED)


def _step(view: Window, found: Fit, ramp: float) -> Fit:
    """A step of Gauss-Newton on the squared differences of coverages.

    A shape that is cut by the border gets the radius that it has in the other frames.
    """
    side = view.coverage.shape[1]
    distance = found.distance(side).astype(np.float32)
    ideal = np.clip(0.5 - distance / ramp, 0.0, 1.0)
    whole = ideal.sum(axis=(1, 2))
    cut = (ideal * (1.0 - view.inside)).sum(axis=(1, 2)) > _CUT * whole
    band = (np.abs(distance) < ramp / 2) * (view.inside / ramp)
    along, across = np.gradient(distance, axis=(1, 2))
    at = np.arange(side, dtype=np.float32) + 0.5
    x, y = at - found.x[:, None], at - found.y[:, None]
    growth = (x[:, None, :] * across + y[:, :, None] * along - distance) / found.radius[:, None, None]
    slopes = np.stack([across * band, along * band, growth * band], axis=1).reshape(len(cut), 3, -1)
    slopes[cut, 2] = 0.0
    rest = ((view.coverage - ideal) * view.inside).reshape(len(cut), -1, 1)
    normal = slopes @ slopes.transpose(0, 2, 1)
    normal += 0.02 * np.eye(3, dtype=np.float32) * np.maximum(normal.trace(axis1=1, axis2=2), 1e-3)[:, None, None]
    move = np.linalg.solve(normal, slopes @ rest)[..., 0].clip(
        -0.3 * found.radius[:, None], 0.3 * found.radius[:, None]
    )
    radius = np.clip(found.radius + move[:, 2], 1.0, side)
    if cut.any() and not cut.all():
        radius[cut] = np.median(radius[~cut])
    return replace(found, x=found.x + move[:, 0], y=found.y + move[:, 1], radius=radius.astype(np.float32))


def _closer_to_others(
    region: Region, others: Sequence[Region], columns: NDArray[np.intp], rows: NDArray[np.intp]
) -> Mask:
    """Which pixels of the window are closer to another region's middle, in radii."""
    closer = np.zeros((*columns.shape, columns.shape[1]), bool)
    own = _squared_radii(region, columns, rows)
    for other in others:
        closer |= _squared_radii(other, columns, rows) < own
    return closer


def _squared_radii(region: Region, columns: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.floating]:
    x, y = columns + 0.5 - region.x[:, None], rows + 0.5 - region.y[:, None]
    return np.asarray((np.square(x)[:, None, :] + np.square(y)[:, :, None]) / region.radius**2)


def _opened(mask: Mask) -> Mask:
    """Without thin lines, as compressed colours leave them along edges."""
    return ~eroded(~eroded(mask))


def _fine_grid(side: int, fineness: int, phases: NDArray[np.floating]) -> NDArray[np.floating]:
    """Places in pixels, (num_frames, side * fineness); each frame's grid is shifted by its phase of a step."""
    return np.asarray((np.arange(side * fineness) + phases[:, None]) / fineness)


def _interpolation(at: NDArray[np.floating], side: int) -> Floats:
    """The matrices, (num_frames, places, side), that interpolate linearly between centres of pixels."""
    place = (at - 0.5).clip(0, side - 1)
    low = np.minimum(place.astype(int), side - 2)
    matrix = np.zeros((*at.shape, side), np.float32)
    np.put_along_axis(matrix, low[..., None], (1 - (place - low))[..., None], axis=2)
    np.put_along_axis(matrix, low[..., None] + 1, (place - low)[..., None], axis=2)
    return matrix


def _moments(shape: str) -> tuple[float, float]:
    """A shape's radius per root of its area, and how far its centre of gravity lies below its centre, in radii."""
    at = np.arange(256, dtype=np.float32) + 0.5 - 128
    mask = signed_distance(shape, at[None, :], at[:, None], _REFERENCE) < 0
    return _REFERENCE / float(np.sqrt(mask.sum())), float((mask.sum(axis=1) @ at) / mask.sum() / _REFERENCE)


_MOMENTS = {shape: _moments(shape) for shape in ("circle", "square", "triangle", "cross")}
