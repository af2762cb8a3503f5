"""Draw a scene as video frames, with anti-aliased edges from signed distances."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fv_shapes.scenes import BACKGROUNDS, COLOURS, RADIUS, SIZES, Scene, centre

_REFERENCE_SIDE = 128


def render(scene: Scene, num_frames: int = 33, height: int = 128, width: int = 128) -> NDArray[np.uint8]:
    """Return frames of shape (num_frames, height, width, 3).

    The radius grows a little slower than the canvas (its power 0.75), so that a shape is neither a few pixels on the
    smallest canvas nor most of the largest.
    """
    side = min(height, width)
    frames = np.full((num_frames, height, width, 3), BACKGROUNDS[scene.background or "white"], np.float32)
    for shape in scene.shapes:
        centres = np.array([centre(shape, frame - (num_frames - 1) / 2) for frame in range(num_frames)], np.float32)
        radius = shape_radius(side) * SIZES[shape.size] * shape.scale
        x, y = width / 2 + side * centres[:, 0], height / 2 + side * centres[:, 1]
        coverage = shape_coverage(shape.shape, radius, x, y, height, width)[..., None]
        frames += coverage * (np.asarray(COLOURS[shape.colour], np.float32) - frames)
    return np.rint(frames).astype(np.uint8)


def shape_radius(side: int) -> float:
    """The radius in pixels of a medium shape on a canvas whose shorter side is `side` pixels."""
    return float(RADIUS * _REFERENCE_SIDE * (side / _REFERENCE_SIDE) ** 0.75)


def shape_coverage(
    shape: str,
    radius: float,
    centre_x: NDArray[np.floating],
    centre_y: NDArray[np.floating],
    height: int,
    width: int,
) -> NDArray[np.float32]:
    """Return how much of each pixel the shape covers: (len(centre_x), height, width), from 0 to 1."""
    x = np.arange(width)[None, None, :] + 0.5 - centre_x[:, None, None]
    y = np.arange(height)[None, :, None] + 0.5 - centre_y[:, None, None]
    distance = signed_distance(shape, x.astype(np.float32), y.astype(np.float32), radius)
    coverage: NDArray[np.float32] = np.clip(0.5 - distance, 0.0, 1.0).astype(np.float32)
    return coverage


def signed_distance(
    shape: str, x: NDArray[np.float32], y: NDArray[np.float32], radius: float | NDArray[np.float32]
) -> NDArray[np.floating]:
    """Distance to the outline of a shape at the origin, negative inside; all broadcast against each other.

    Sizes are chosen so that the shapes look equally large.
    """
    across, along = np.abs(x), np.abs(y)
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "square":
        return np.maximum(across, along) - 0.89 * radius
    if shape == "triangle":
        return np.maximum(across * 0.8660254 - y * 0.5, y) - 0.62 * radius
    if shape == "cross":
        arm, reach = 0.36 * radius, 1.08 * radius
        horizontal, vertical = np.maximum(across - reach, along - arm), np.maximum(across - arm, along - reach)
        return np.minimum(horizontal, vertical)
    raise ValueError(f"unknown shape {shape!r}")
