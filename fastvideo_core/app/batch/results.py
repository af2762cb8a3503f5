"""The results of a batch: a line of JSON for each row that ended, the last one of an id counts."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastvideo_core.app.batch.row import RowResult, RowStatus
from fastvideo_core.app.batch.work import Order
from fastvideo_core.app.files import JsonLines
from fastvideo_core.errors import InputError, OutputError


class Results:
    """A file of results, which later runs into the same folder go on with.

    Raises:
        InputError: it is there and damaged. OutputError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lines = path, JsonLines(path)
        try:
            self._last: dict[str, dict[str, Any]] = {line["id"]: line for line in self._lines.read()}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(f"{str(path)!r} is no file of results, or damaged: {error!r}; move it away") from error

    def failed_before(self, order: Order) -> str | None:
        """The error that the same row failed with in an earlier run; None where it did not, or was another row.

        A row whose file could not be written, such as over another one, does not count: that is looked at again.
        """
        line = self._last.get(order.id, {})
        if line.get("status") != RowStatus.FAILED or line.get("asked") != asked(order):
            return None
        return str(line.get("error"))

    def add(self, order: Order, result: RowResult) -> None:
        """Write the line, unless it would repeat what stands there already: found, after made or found.

        Raises:
            OutputError: it cannot be written; the file is as it was.
        """
        of_the_disk = isinstance(result.error, OutputError)  # which someone may tidy up before the next run
        line = {**result.as_dict(), "asked": None if of_the_disk else asked(order)}
        before = self._last.get(order.id, {})
        known = before.get("asked") == line["asked"] and before.get("status") in (RowStatus.MADE, RowStatus.FOUND)
        if result.status is RowStatus.FOUND and known:
            return
        self._lines.append(line)
        self._last[order.id] = line


def asked(order: Order) -> str:
    """What tells a row from one of the same id with another prompt or settings."""
    text = json.dumps([order.key, order.row.prompt, order.params.seed], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@contextmanager
def worked_through_alone(path: Path) -> Iterator[None]:
    """Refuse a second process that would work through the same rows into the same folder.

    Raises:
        OutputError: another one does; or the file of results cannot be opened.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(f"{str(path)!r} cannot be written: {error.strerror}; choose another place") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"another run is writing {str(path)!r} right now; wait for its end, choose another folder, or give "
                "each run its part with --shard"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)
