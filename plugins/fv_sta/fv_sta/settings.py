"""What can be set on SLIDING_TILE_ATTN."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastvideo_core import setting
from fastvideo_core.errors import InputError
from fv_sta.strategy import Table, read_strategy
from fv_sta.tiles import DEFAULT_TILE, Triple, check_tile, parse_triple


def _window(value: Any) -> Triple:
    """Three whole numbers, from text with commas or a sequence."""
    text = value if isinstance(value, str) else ",".join(map(str, value))
    try:
        return parse_triple(text.strip(), "", "")
    except InputError:
        raise ValueError("it must be three whole numbers: time,height,width") from None


def _tile(value: Any) -> Triple | None:
    """None for the tile that pads least."""
    return None if str(value).strip().lower() == "auto" else check_tile(_window(value), "")


def _file(value: Any) -> Table:
    return value if isinstance(value, Table) else read_strategy(Path(value).expanduser())


@dataclass(frozen=True)
class StaSettings:
    """The settings of SLIDING_TILE_ATTN; a window or a file of windows, not both."""

    file: Table | None = setting(None, "a file of windows for each step, layer and head", parse=_file)
    window: Triple | None = setting(
        None,
        "tiles along time, height and width that a tile sees; by default 3,3,3, less where there are fewer",
        parse=_window,
    )
    tile: Triple | None = setting(
        DEFAULT_TILE, "tokens of a tile along time, height and width; auto: what pads least", parse=_tile
    )
    dense: float = setting(0.25, "the share of the first steps that has full attention, without a file", ge=0, le=1)
    kernel: Literal["fa4", "flex", "st_attn"] | None = setting(
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
