"""Refuse sizes that no memory here can hold, before a model is loaded."""

from __future__ import annotations

import os

import torch

from fastvideo_core.app.model_info import ModelInfo
from fastvideo_core.app.sampling import SamplingParam
from fastvideo_core.errors import InputError

_LIVE_AT_ONCE = 4
"""Tensors of all tokens that an attention layer has at least: what goes in, query, key and value."""


def check_memory(params: SamplingParam, info: ModelInfo, device: str, dtype: torch.dtype) -> None:
    """Refuse a video whose tokens or frames alone are more than there is memory, whatever the weights need.

    Raises:
        InputError: with the tokens, the bytes that they take at least, and the bytes that there are.
    """
    tokens = 1
    for count in params.grid(info):
        tokens *= count
    attention = tokens * info.channels * dtype.itemsize * _LIVE_AT_ONCE
    frames = params.num_frames * params.height * params.width * 3 * 4
    size = f"{params.num_frames} frames of {params.width}x{params.height} are {tokens:,} tokens"
    checks = [("one attention layer", attention, device), ("the frames", frames, "cpu")]
    for what, needed, place in checks:
        there = _memory_of(place)
        if there is not None and needed > there:
            raise InputError(
                f"{size}: {what} of {info.name} would take at least {needed:,} bytes ({needed / 2**30:.1f} GiB), and "
                f"{place} has {there:,} ({there / 2**30:.1f} GiB); choose a smaller size or fewer frames"
            )


def _memory_of(device: str) -> int | None:
    """Bytes, used ones included; None where the system does not tell."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def free_memory(device: str) -> int | None:
    """Bytes that tensors could still take; None where the system does not tell.

    On a GPU that is all that this process's tensors do not take: what other programs hold there is not counted.
    """
    if device.startswith("cuda"):
        total = int(torch.cuda.get_device_properties(device).total_memory)
        return total - int(torch.cuda.memory_allocated(device))
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
