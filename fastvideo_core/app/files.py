"""Files that appear when they are whole, files that grow by whole lines, and files of prompts."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastvideo_core.app.unfinished import flush, give_name, remove_leftovers, unfinished
from fastvideo_core.errors import InputError, OutputError


@contextmanager
def written_whole(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary file to write to, which gets the name `path` at the end; an exception leaves neither.

    Args:
        overwrite: whether it may take the place of a regular file. Nothing else is ever replaced, and no link followed.

    Raises:
        OutputError: the name is taken, or it cannot be written, such as on a full disk.
    """
    check_output_file(path, overwrite)
    with _explained(path):
        remove_leftovers(path.parent)
        with unfinished(path.parent, path.suffix) as temporary:
            yield temporary
            flush(temporary)
            if overwrite:
                temporary.replace(path)
            else:
                _name(temporary, path)
            flush(path.parent)


def check_output_file(path: Path, overwrite: bool = False) -> None:
    """Refuse a file that `written_whole` could not write, before the work that it is to hold.

    Raises:
        OutputError: the name is taken or too long, or there is no such folder.
    """
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder {str(path.parent)!r} to write {path.name} into; make it first")
    with _explained(path):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
    if not stat.S_ISREG(mode):
        raise OutputError(f"{str(path)!r} is there already and no regular file, so it stays; choose another name")
    if not overwrite:
        raise _taken(path)


def _name(temporary: Path, path: Path) -> None:
    try:
        give_name(temporary, path)
    except FileExistsError as error:
        raise _taken(path) from error


def _taken(path: Path) -> OutputError:
    return OutputError(f"{str(path)!r} is there already; choose another name, or overwrite it with --overwrite")


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
        remedy = "free some space, or choose" if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) else "choose"
        raise OutputError(f"{str(path)!r} cannot be written: {reason}; {remedy} another place") from error


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, one a line; empty lines do not count.

    Raises:
        InputError: it cannot be read, or has none.
    """
    try:
        prompts = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the prompts {str(path)!r} cannot be read: {error}") from error
    if not prompts:
        raise InputError(f"{str(path)!r} has no prompts, one a line")
    return prompts
