"""Which kernel is the fastest, as measured: the order in which they are tried.

One NVIDIA H100 80GB, torch 2.11.0, bfloat16, 24 heads of 128, 30x48x80 tokens and 256 of text, window 3,3,3: medians
of 7 alternating rounds, 2026-11-23, `python benchmarks/sta.py`. On a canvas that no tile divides (one NVIDIA H200, 12
heads, 21x30x52 tokens, tile 6x8x8, 2026-11-26) `fa4` takes 3.08 ms and `flex` 5.88.
"""

from __future__ import annotations

MILLISECONDS: dict[str, float | None] = {"fa4": 24.8, "st_attn": 39.5, "flex": 48.0, "fastvideo_kernel": None}
"""None: not measured yet. Such a kernel is tried last, so it runs where it is named."""


def fastest_first() -> list[str]:
    """All kernels, in the order in which they are tried."""
    return sorted(MILLISECONDS, key=lambda name: (MILLISECONDS[name] is None, MILLISECONDS[name] or 0.0))
