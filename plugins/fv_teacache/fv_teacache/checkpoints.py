"""What has been published for TeaCache: coefficients and thresholds per checkpoint.

From https://github.com/ali-vilab/TeaCache, highest power first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Published settings of one checkpoint in one variant.

    Attributes:
        names: what the last part of the checkpoint's name may be.
        coefficients: of the polynomial, highest power first.
        thresholds: those that were published with timings, lowest first.
        ret_steps: whether they are for the variant `use_ret_steps` of Wan 2.1.
    """

    names: tuple[str, ...]
    coefficients: tuple[float, ...]
    thresholds: tuple[float, ...]
    ret_steps: bool = False


def _wan(name: str) -> tuple[str, ...]:
    return (f"Wan2.1-{name}-Diffusers", f"Wan2.1-{name}")


PUBLISHED = (
    Published(
        _wan("T2V-1.3B"),
        (2.39676752e3, -1.31110545e3, 2.01331979e2, -8.29855975, 1.37887774e-1),
        (0.05, 0.07, 0.08),
    ),
    Published(
        _wan("T2V-1.3B"),
        (-5.21862437e4, 9.23041404e3, -5.28275948e2, 1.36987616e1, -4.99875664e-2),
        (0.05, 0.10),
        ret_steps=True,
    ),
    Published(
        _wan("T2V-14B"),
        (-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404),
        (0.14, 0.15, 0.2),
    ),
    Published(
        _wan("T2V-14B"),
        (-3.03318725e5, 4.90537029e4, -2.65530556e3, 5.87365115e1, -3.15583525e-1),
        (0.10, 0.20),
        ret_steps=True,
    ),
    Published(
        _wan("I2V-14B-480P"),
        (-3.02331670e2, 2.23948934e2, -5.25463970e1, 5.87348440, -2.01973289e-1),
        (0.13, 0.19, 0.26),
    ),
    Published(
        _wan("I2V-14B-480P"),
        (2.57151496e5, -3.54229917e4, 1.40286849e3, -1.35890334e1, 1.32517977e-1),
        (0.20, 0.30),
        ret_steps=True,
    ),
    Published(
        _wan("I2V-14B-720P"),
        (-114.36346466, 65.26524496, -18.82220707, 4.91518089, -0.23412683),
        (0.18, 0.2, 0.3),
    ),
    Published(
        _wan("I2V-14B-720P"),
        (8.10705460e3, 2.13393892e3, -3.72934672e2, 1.66203073e1, -4.17769401e-2),
        (0.20, 0.30),
        ret_steps=True,
    ),
    Published(
        ("HunyuanVideo",),
        (7.33226126e2, -4.01131952e2, 6.75869174e1, -3.14987800, 9.61237896e-2),
        (0.1, 0.15),
    ),
    Published(
        ("LTX-Video-0.9.1", "LTX-Video-0.9.1-diffusers", "LTX-Video"),
        (2.14700694e1, -1.28016453e1, 2.31279151, 7.92487521e-1, 9.69274326e-3),
        (0.03, 0.05),
    ),
    Published(
        ("mochi-1-preview",),
        (-3.51241319e3, 8.11675948e2, -6.09400215e1, 2.42429681, 3.05291719e-3),
        (0.06, 0.09),
    ),
    Published(
        ("CogVideoX-2b",),
        (-3.10658903e1, 2.54732368e1, -5.92380459, 1.75769064, -3.61568434e-3),
        (0.1, 0.2),
    ),
    Published(
        ("CogVideoX-5b", "CogVideoX-5b-I2V"),
        (-1.53880483e3, 8.43202495e2, -1.34363087e2, 7.97131516, -5.23162339e-2),
        (0.1, 0.15, 0.2),
    ),
    Published(
        ("CogVideoX1.5-5B",),
        (2.50210439e2, -1.65061612e2, 3.57804877e1, -7.81551492e-1, 3.58559703e-2),
        (0.1, 0.2, 0.3),
    ),
    Published(
        ("CogVideoX1.5-5B-I2V",),
        (1.22842302e2, -1.04088754e2, 2.62981677e1, -3.06009921e-1, 3.71213220e-2),
        (0.1, 0.2, 0.3),
    ),
)


def find(checkpoint: str, ret_steps: bool) -> Published | None:
    """What was published for a checkpoint, by its name, with or without an owner in front."""
    last = checkpoint.rstrip("/").rpartition("/")[2].lower()
    return next((p for p in PUBLISHED if p.ret_steps is ret_steps and last in map(str.lower, p.names)), None)


def known_names() -> Iterator[str]:
    """A name of each checkpoint, once."""
    yield from dict.fromkeys(published.names[0] for published in PUBLISHED)
