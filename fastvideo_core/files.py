"""Files that appear when they are whole, and files of prompts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastvideo_core.errors import InputError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name to write to, renamed to `path` at the end; an exception leaves neither."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, one a line; empty lines do not count.

    Raises:
        InputError: it cannot be read, or has none.
    """
    try:
        prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the prompts {str(path)!r} cannot be read: {error}") from error
    if not prompts:
        raise InputError(f"{str(path)!r} has no prompts, one a line")
    return prompts
