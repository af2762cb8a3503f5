"""What to say of a name that no installed plugin provides."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from itertools import groupby

from fastvideo_core.discovery.plugins import Plugins

_MOST_OF_ONE_KIND = 6


def listed(names: Iterable[str]) -> str:
    """Names in a sentence; many that begin with one word stand as one: "DIFFUSERS_… (27 of them)"."""
    parts: list[str] = []
    for word, group in groupby(sorted(names), lambda name: name.split("_")[0]):
        kind = list(group)
        parts += kind if len(kind) <= _MOST_OF_ONE_KIND else [f"{word}_… ({len(kind)} of them)"]
    return ", ".join(parts)


def unknown_name(
    plugins: Plugins, what: str, name: str, origin: str, installed: list[str], first_party: Mapping[str, str]
) -> tuple[str, Exception | None]:
    """A message with what is installed, what may have been meant, and what to do; and the error behind it, if any.

    Args:
        first_party: this project's names of that kind, and the package that brings each.
    """
    package = first_party.get(name)
    of_package = [plugin for plugin in plugins.all if plugin.distribution == package]
    broken = [plugin for plugin in of_package if plugin.status == "broken"] or plugins.broken
    parts = [f"unknown {what} {name!r} (from {origin}); installed: {listed(installed) or 'none'}"]
    if any(plugin.status == "disabled" for plugin in of_package):
        parts.append(f"{package} is installed but switched off by FASTVIDEO_DISABLE_PLUGINS")
    elif package and not of_package:
        parts.append(f"to get {name}: pip install {package}")
    elif not package and (close := difflib.get_close_matches(name, {*installed, *first_party}, n=1)):
        parts.append(
            f"did you mean {close[0]}?" + ("" if close[0] in installed else f" (pip install {first_party[close[0]]})")
        )
    parts += [f"{plugin.label} provides nothing because it is broken ({plugin.cause})" for plugin in broken]
    return "; ".join(parts), (broken[0].error if broken else None)
