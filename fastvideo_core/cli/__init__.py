"""The command `fv`. Commands import what they need when they run, so that help and listings are instant."""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from typing import Any

import click

from fastvideo_core.cli.bench import bench_command
from fastvideo_core.cli.doctor import doctor_command
from fastvideo_core.cli.generate import generate_command
from fastvideo_core.cli.models import models_command
from fastvideo_core.cli.output import discovered, own_output, say
from fastvideo_core.cli.plugins import plugins_command
from fastvideo_core.cli.streams import checked_output, finish_streams, open_closed_streams, say_at_the_end
from fastvideo_core.discovery.plugins import own_version
from fastvideo_core.discovery.printable import explain
from fastvideo_core.errors import FastVideoError


class _Fv(click.Group):
    """Reports the project's errors as one line, and shows the commands that plugins add."""

    _complete = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._add_plugin_commands()
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            self._add_plugin_commands()
        return super().get_command(ctx, cmd_name)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except FastVideoError as error:
            raise click.ClickException(str(error)) from error

    def _add_plugin_commands(self) -> None:
        if self._complete:
            return
        self._complete = True
        found = discovered()
        known_broken = set(map(id, found.broken))
        with own_output():
            found.register_commands(self)
        for plugin in found.broken:
            if id(plugin) not in known_broken:
                say(f"fv: {plugin.label} could not add its commands: {plugin.cause}", err=True)


@click.group(cls=_Fv, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(own_version(), package_name="fastvideo-core")
def fv() -> None:
    """Attention kernels for video diffusion, as plugins of stock diffusers pipelines."""


fv.add_command(bench_command)
fv.add_command(doctor_command)
fv.add_command(generate_command)
fv.add_command(models_command)
fv.add_command(plugins_command)


def main() -> None:
    """Run `fv`, with status 1 after an error, 2 after one in what was typed, and 130 after Ctrl-C."""
    warnings.showwarning = _show_warning
    status = _run()
    problem = finish_streams()
    if problem and not status:
        say_at_the_end(f"Error: {problem}")
    sys.exit(status or int(problem is not None))


def _run() -> int:
    """The status that it ends with, after its error has been printed."""
    try:
        open_closed_streams()
        with checked_output():
            fv.main(standalone_mode=False)
    except SystemExit as end:
        if isinstance(end.code, str):
            say_at_the_end(end.code)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except click.UsageError as error:
        with suppress(OSError):
            error.show()  # of what the user typed, with the usage
        return error.exit_code
    except click.ClickException as error:
        say_at_the_end(f"Error: {error.format_message()}")
        return error.exit_code
    except FastVideoError as error:
        say_at_the_end(f"Error: {error}")
        return 1
    except (click.Abort, KeyboardInterrupt):
        say_at_the_end("interrupted; no file was left unfinished")
        return 130
    except OSError as error:
        say_at_the_end(f"Error: {explain(error)}")
        return 1
    return 0


def _show_warning(message: Warning | str, *place: Any, **more: Any) -> None:
    """In a line, without the place in the source, which tells users nothing."""
    say_at_the_end(f"Warning: {message}")
