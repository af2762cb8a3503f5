"""Ray for fastvideo-core: `VideoPredictor` and `map_videos` for Ray Data, `fv batch`, and the executor "ray".

Ray itself is imported by what needs it, when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastvideo_core import Executor, hookimpl
from fv_ray.dataset import map_videos
from fv_ray.executor import RayActors
from fv_ray.predictor import VideoPredictor

if TYPE_CHECKING:
    import click

api_version = 2

__all__ = ["RayActors", "VideoPredictor", "map_videos"]


@hookimpl
def fastvideo_executors() -> list[type[Executor]]:
    """Actors of a Ray cluster."""
    return [RayActors]


@hookimpl
def fastvideo_register_commands(cli: click.Group) -> None:
    from fv_ray.commands import batch_command

    cli.add_command(batch_command)
