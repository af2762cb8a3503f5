"""`fv serve`: OpenAI's videos API on one generator. The web framework is imported by the command alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastvideo_core import Generation, hookimpl
from fv_serve import running

if TYPE_CHECKING:
    import click

api_version = 2


@hookimpl
def fastvideo_register_commands(cli: click.Group) -> None:
    from fv_serve.commands import serve_command

    cli.add_command(serve_command)


@hookimpl
def fastvideo_generation_started(generation: Generation) -> None:
    running.generation_started(generation)
