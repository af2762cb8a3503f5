"""Files that appear when they are whole, files that grow by whole lines, and files of prompts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastvideo_core.app.unfinished import flush, remove_leftovers, unfinished
from fastvideo_core.errors import InputError, OutputError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file to write to, which takes the place of `path` at the end; an exception leaves neither.

    Raises:
        OutputError: it cannot be written, such as on a full disk.
    """
    with _explained(path):
        remove_leftovers(path.parent)
        with unfinished(path.parent, path.suffix) as temporary:
            yield temporary
            flush(temporary)
            temporary.replace(path)
            flush(path.parent)


class JsonLines:
    """A file with a JSON value a line, that a program which was interrupted goes on with.

    Raises:
        OutputError: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Any]:
        """What was appended; a last line that was cut off is removed.

        Raises:
            ValueError: a line is no JSON.
        """
        with _explained(self.path):
            if not self.path.exists():
                return []
            content = self.path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                os.truncate(self.path, len(whole))
        return [json.loads(line) for line in whole.split(b"\n")[:-1]]

    def append(self, value: Any) -> None:
        """Add a line, or leave the file as it was."""
        with _explained(self.path):
            size = self.path.stat().st_size if self.path.exists() else 0
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(value, ensure_ascii=False) + "\n")
            except OSError:
                if self.path.exists():
                    os.truncate(self.path, size)
                raise


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"{str(path)!r} cannot be written: {reason}; free some space, or choose another place"
        ) from error


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
