"""The entry points of what is installed, read distribution by distribution: a damaged one spoils no other.

`importlib.metadata.entry_points` reads all of them at once, and raises for all of them where one is garbled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions

from fastvideo_core.discovery.environment import normalize_plugin_name
from fastvideo_core.discovery.metadata import ENTRY_POINTS_FILE, METADATA_FILES, Kept
from fastvideo_core.discovery.printable import explain, printable
from fastvideo_core.errors import PluginError


@dataclass(frozen=True)
class Found:
    """An entry point with its distribution; without the entry point, why it cannot be read."""

    distribution: str
    version: str
    name: str
    entry_point: EntryPoint | None
    error: PluginError | None = None


def entry_points_of(group: str) -> list[Found]:
    """All entry points of a group, and the distributions whose entry points cannot be read.

    Sorted, so that listings do not depend on the file system. Of two distributions of one name the first on the path
    counts, as it does for imports; the same entry point found twice counts once.
    """
    found: dict[tuple[str, str, str, str], Found] = {}
    seen: set[str] = set()
    reader = _reader_of(group)
    for distribution in distributions():
        name, points = reader(distribution)
        if name in seen:
            continue
        if name:
            seen.add(name)
        for one in points:
            value = one.entry_point.value if one.entry_point else ""
            found[one.distribution, one.version, one.name, value] = one
    return [found[key] for key in sorted(found)]


@cache
def _reader_of(group: str) -> Callable[[Distribution], tuple[str, list[Found]]]:
    """Of a distribution its name as indexes spell it, and what it has of the group."""
    heading = re.compile(rf"^\s*\[\s*{group}\s*\]", re.MULTILINE)

    def look(distribution: Distribution) -> tuple[str, bool]:
        try:
            has = heading.search(distribution.read_text("entry_points.txt") or "") is not None
        except Exception:
            has = True  # it cannot be read, which `_read` tells
        return normalize_plugin_name(_of_folder(distribution)[0]), has

    looked = Kept(look, (ENTRY_POINTS_FILE,))
    read = Kept(lambda distribution: list(_read(distribution, group)), (ENTRY_POINTS_FILE, *METADATA_FILES))

    def reader(distribution: Distribution) -> tuple[str, list[Found]]:
        name, has = looked(distribution)
        return name, read(distribution) if has else []

    return reader


def _read(distribution: Distribution, group: str) -> Iterator[Found]:
    """What one distribution has, with the name and version of its folder where its metadata cannot be read."""
    name, version = _of_folder(distribution)
    name = name or "unknown"
    try:
        points = [point for point in distribution.entry_points if point.group == group]
    except Exception as error:
        yield _damaged(name, version, "", f"its entry_points.txt cannot be read ({explain(error)})")
        return
    try:
        metadata = distribution.metadata
        stated = metadata["Name"], metadata["Version"]
        problem = "" if all(stated) else "its METADATA is missing or lacks its name or version"
    except Exception as error:
        stated, problem = ("", ""), f"its METADATA cannot be read ({explain(error)})"
    for point in points:
        if problem:
            yield _damaged(name, version, point.name, problem)
        else:
            yield Found(printable(stated[0]), printable(stated[1]), printable(point.name), point)


def _damaged(name: str, version: str, plugin: str, problem: str) -> Found:
    error = PluginError(f"{problem}, as after an interrupted installation: install {name} again, or uninstall it")
    return Found(name, version, printable(plugin) or name, None, error)


def _of_folder(distribution: Distribution) -> tuple[str, str]:
    """Name and version as the folder of the metadata has them, which needs no reading; empty where there is none."""
    folder = str(getattr(getattr(distribution, "_path", None), "name", ""))
    name, _, version = folder.removesuffix(".dist-info").removesuffix(".egg-info").partition("-")
    return printable(name), printable(version)
