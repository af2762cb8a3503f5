"""What can be set on SLIDING_TILE_ATTN."""

from __future__ import annotations

import os.path
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastvideo_core import setting
from fastvideo_core.errors import InputError
from fv_sta.strategy import Table, read_strategy
from fv_sta.tiles import Triple, check_tile, parse_triple


def _window(value: Any) -> Triple:
    """Three whole numbers, from text with commas or a sequence."""
    text = value if isinstance(value, str) else ",".join(map(str, value))
    try:
        return parse_triple(text.strip(), "", "")
    except InputError:
        raise ValueError("it must be three whole numbers, 1 or more: time,height,width") from None


Auto = Literal["auto"]
"""The tile that pads least on the canvas."""


def _tile(value: Any) -> Triple | Auto:
    return "auto" if str(value).strip().lower() == "auto" else check_tile(_window(value), "")


def _file(value: Any) -> Table:
    return value if isinstance(value, Table) else read_strategy(Path(os.path.expanduser(value)))


@dataclass(frozen=True)
class StaSettings:
    """The settings of SLIDING_TILE_ATTN; a window or a file of windows, not both."""

    file: Table | None = setting(None, "a file of windows for each step, layer and head", parse=_file, file=True)
    window: Triple | None = setting(
        None,
        "tiles along time, height and width that a tile sees; by default what reaches as far as 3,3,3 of 6,8,8",
        parse=_window,
    )
    tile: Triple | Auto | None = setting(
        None,
        "tokens of a tile along time, height and width; auto: what pads least; by default 6,8,8, or what computes less "
        "where that pads and no window is set",
        parse=_tile,
    )
    dense: float = setting(0.25, "the share of the first steps that has full attention, without a file", ge=0, le=1)
    kernel: Literal["fa4", "fastvideo_kernel", "flex", "st_attn"] | None = setting(
        None, "the kernel; by default the first that is there and fits"
    )
    order: Literal["forward", "layer"] = setting(
        "forward", "whether tokens are brought into tile order once per forward pass, or in each layer"
    )

    def __post_init__(self) -> None:
        if self.file is not None and self.window is not None:
            raise InputError(
                f"SLIDING_TILE_ATTN was given the file of windows {self.file.source!r} and the window "
                f"{','.join(map(str, self.window))} for all of them; leave one out"
            )
