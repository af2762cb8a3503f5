"""Distances of colours, and the named colour that is nearest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fv_shapes.scenes import COLOURS

_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])


def lab(colour: ArrayLike) -> NDArray[np.float64]:
    """CIELAB (D65) of sRGB colours in 0…255, along the last axis."""
    share = np.asarray(colour, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    x = linear @ _TO_XYZ.T / _WHITE
    root = np.where(x > 216 / 24389, np.cbrt(x), (24389 / 27 * x + 16) / 116)
    return np.stack(
        [116 * root[..., 1] - 16, 500 * (root[..., 0] - root[..., 1]), 200 * (root[..., 1] - root[..., 2])], axis=-1
    )


def difference(colour: ArrayLike, other: ArrayLike) -> NDArray[np.float64]:
    """CIE 1976 colour difference Delta E of sRGB colours in 0…255; 2.3 is about what an eye just notices."""
    return np.asarray(np.linalg.norm(lab(colour) - lab(other), axis=-1))


def nearest(
    colours: NDArray[np.floating], table: Mapping[str, tuple[int, int, int]], furthest: float
) -> tuple[list[str | None], NDArray[np.float64]]:
    """For each of (count, 3) colours the nearest one's name, None where it is further than `furthest`; how far."""
    names = list(table)
    distances = difference(colours[:, None], np.array([table[name] for name in names]))
    best, least = distances.argmin(axis=1), distances.min(axis=1)
    return [
        names[number] if distance <= furthest else None for number, distance in zip(best, least, strict=True)
    ], least


def nearest_by_bytes(values: NDArray[np.float32]) -> NDArray[np.intp]:
    """The number of the nearest named colour, in RGB, of each of (count, 3) colours."""
    table = np.array(list(COLOURS.values()), np.float32)
    return np.asarray((np.square(table).sum(axis=1) - 2 * values @ table.T).argmin(axis=1))
