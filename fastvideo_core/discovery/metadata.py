"""Metadata of what is installed, read again only where its files have changed: reading it takes milliseconds a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")

METADATA_FILES = ("", "/METADATA", "/PKG-INFO")
"""Where name and version stand below the path of the metadata: it may be a file itself, as distutils left it."""
ENTRY_POINTS_FILE = "/entry_points.txt"


class Kept(Generic[T]):
    """What `read` makes of a distribution, until one of the files that it reads is another.

    Args:
        files: what follows the path of the metadata in theirs.
    """

    def __init__(self, read: Callable[[Distribution], T], files: tuple[str, ...]) -> None:
        self._read, self._files = read, files
        self._kept: dict[str, tuple[Any, T]] = {}

    def __call__(self, distribution: Distribution) -> T:
        folder = getattr(distribution, "_path", None)
        if not isinstance(folder, Path):  # in an archive, or brought by a finder of its own
            return self._read(distribution)
        place = str(folder)
        state = [_state(place + name) for name in self._files]
        kept = self._kept.get(place)
        if kept is None or kept[0] != state:
            kept = self._kept[place] = state, self._read(distribution)
        return kept[1]


def _state(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # for every distribution that is installed: a Path costs more than this
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


_version = Kept(lambda distribution: distribution.version, METADATA_FILES)


def installed_version(name: str) -> str:
    """The version of a distribution, as `importlib.metadata.version` has it.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    return _version(distribution(name))
