"""`fv plugins`: what is installed, also when some of it is broken."""

from __future__ import annotations

import json

import click

from fastvideo_core.cli.new_plugin import new_command
from fastvideo_core.cli.output import discovered, say
from fastvideo_core.discovery.plugins import Plugin


@click.group("plugins", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def plugins_command(context: click.Context, as_json: bool) -> None:
    """List every plugin that is installed: where it comes from, what it provides, and what is wrong with it."""
    if context.invoked_subcommand:
        return
    found = discovered().all
    if as_json:
        say(json.dumps([_as_dict(plugin) for plugin in found], indent=2))
        return
    rows = [("PLUGIN", "DISTRIBUTION", "STATUS", "PROVIDES")]
    rows += [(p.name, p.label, p.status, _what(p)) for p in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)).rstrip())
    for plugin in found:
        if plugin.cause:
            say(f"\n{plugin.label} is broken: {plugin.cause}", err=True)


plugins_command.add_command(new_command)


def _what(plugin: Plugin) -> str:
    return ", ".join([*plugin.provides, *(["watches generations"] if plugin.watches else [])]) or "-"


def _as_dict(plugin: Plugin) -> dict[str, object]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": plugin.status,
        "attention_backends": [backend.name for backend in plugin.backends],
        "cache_policies": [policy.name for policy in plugin.policies],
        "model_families": [family.name for family in plugin.families],
        "watches": plugin.watches,
        "model_presets": [preset.name for preset in plugin.presets],
        "error": plugin.cause,
    }
