"""Files in the making: hidden, locked for as long as someone writes them, on the disk before they get their name.

Who holds an unfinished file is told by its lock and not by a process number, which means nothing in another container
or on another computer. The system drops the lock when the writer ends, however that ends.
"""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_PREFIX = ".partial-"
_DIGITS = 16
_PATTERN = f"{_PREFIX}{'[0-9a-f]' * _DIGITS}*"


@contextmanager
def unfinished(folder: Path, suffix: str) -> Iterator[Path]:
    """A new empty file in the folder, under a hidden name, to be written, flushed, and given its name.

    It has the permissions that the umask leaves. What still has the hidden name in the end is removed.

    Raises:
        OSError: it cannot be made.
    """
    descriptor, path = _create_locked(folder, suffix)
    try:
        yield path
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk: after a power cut no name leads to half a file.

    Raises:
        OSError: the disk does not take it.
    """
    folder = path.is_dir()
    if folder and sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no such thing
            raise
    finally:
        os.close(descriptor)


def give_name(file: Path, name: Path) -> None:
    """Give a file that is whole its name.

    Raises:
        FileExistsError: the name is taken.
        OSError: the folder cannot be written to.
    """
    try:
        os.link(file, name)  # the one way to name a file that fails if the name is taken; some file systems have none
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        if name.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(name)) from None
        file.rename(name)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep others who ask for it out of a folder while the context lasts; where there are no such locks, nobody.

    Raises:
        OSError: the folder cannot be opened.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove unfinished files that nobody holds: their writers were killed.

    Where a file system has no locks, none is removed.
    """
    for path in folder.glob(_PATTERN):
        if sys.platform == "win32":
            _remove_unless_open(path)
        else:
            _remove_unless_locked(path)


def _create_locked(folder: Path, suffix: str) -> tuple[int, Path]:
    """A new file that is ours: between its making and its locking, another process may take it for a leftover."""
    while True:
        path = folder / f"{_PREFIX}{secrets.token_hex(_DIGITS // 2)}{suffix}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            _lock(descriptor)
            if path.exists():
                return descriptor, path
        except BaseException:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        os.close(descriptor)


if sys.platform == "win32":

    def _lock(descriptor: int) -> None:
        """Nothing: the system itself does not remove a file that is open."""

    def _remove_unless_open(path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except PermissionError:
            return

else:

    def _lock(descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
                raise

    def _remove_unless_locked(path: Path) -> None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return  # gone meanwhile, or another user's
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except OSError:
            return  # held by its writer, or there are no locks here
        finally:
            os.close(descriptor)
