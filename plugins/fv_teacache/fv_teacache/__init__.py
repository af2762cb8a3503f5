"""TEACACHE: TeaCache (Liu et al. 2024, "Timestep Embedding Tells"), https://github.com/ali-vilab/TeaCache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastvideo_core import CachePolicy, hookimpl

if TYPE_CHECKING:
    import click

api_version = 2


@hookimpl
def fastvideo_cache_policies() -> list[type[CachePolicy]]:
    from fv_teacache.policy import TeaCache

    return [TeaCache]


@hookimpl
def fastvideo_register_commands(cli: click.Group) -> None:
    from fv_teacache.commands import teacache

    cli.add_command(teacache)
