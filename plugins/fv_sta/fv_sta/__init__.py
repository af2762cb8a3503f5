"""SLIDING_TILE_ATTN: Sliding Tile Attention (Zhang et al. 2025) on any canvas and any device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastvideo_core import AttentionBackend, hookimpl

if TYPE_CHECKING:
    import click

api_version = 2


@hookimpl
def fastvideo_attention_backends() -> list[AttentionBackend]:
    from fv_sta.backend import SlidingTileAttention

    return [SlidingTileAttention()]


@hookimpl
def fastvideo_register_commands(cli: click.Group) -> None:
    from fv_sta.commands import sta

    cli.add_command(sta)
