"""Where videos are written: a folder that every machine sees, or an address that fsspec knows, such as s3://…"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastvideo_core import RowResult, RowStatus
from fastvideo_core.errors import InputError, OutputError

_SUFFIXES = (".json", ".png", ".mp4")
"""Of the files of a video; the one whose name says that it is whole comes last."""


class SharedFolder:
    """A folder that every machine sees; videos are written into it directly."""

    def __init__(self, path: str) -> None:
        self.local = Path(path).absolute()

    def doing(self, row_id: str, work: Callable[[], RowResult]) -> RowResult:
        """What `work` gives, which writes into `local`."""
        return work()

    def close(self) -> None:
        """Nothing is to be left."""


class Address:
    """A folder of an object store: videos are written here, then brought there, and those that are there count.

    Raises:
        InputError: fsspec does not know the address, or misses a package for it.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._system, self._folder = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InputError(f"the address {url!r} cannot be used: {error}") from error
        self._url = url.rstrip("/")
        self._here = tempfile.TemporaryDirectory(prefix="fv-ray-")
        self.local = Path(self._here.name)

    def doing(self, row_id: str, work: Callable[[], RowResult]) -> RowResult:
        """Have what is there of the row here, do the work, and bring what it made there.

        Raises:
            OutputError: it cannot be read or written there.
        """
        try:
            self._fetch(row_id)
            result = work()
            if result.status is RowStatus.MADE:
                self._bring(row_id)
            return self._told(result)
        except OSError as error:
            raise OutputError(f"{self._url}/{row_id}.mp4 cannot be read or written: {error}") from error
        finally:
            for suffix in _SUFFIXES:
                with suppress(FileNotFoundError):
                    self._local(row_id, suffix).unlink()

    def close(self) -> None:
        """Remove the folder here."""
        self._here.cleanup()

    def _fetch(self, row_id: str) -> None:
        if not self._system.exists(f"{self._folder}/{row_id}.mp4"):
            return  # a receipt alone is what a process left that was killed
        for suffix in _SUFFIXES:
            if self._system.exists(there := f"{self._folder}/{row_id}{suffix}"):
                self._system.get_file(there, str(self._local(row_id, suffix)))

    def _bring(self, row_id: str) -> None:
        self._system.makedirs(self._folder, exist_ok=True)
        for suffix in _SUFFIXES:
            if (made := self._local(row_id, suffix)).is_file():
                self._system.put_file(str(made), f"{self._folder}/{row_id}{suffix}")

    def _told(self, result: RowResult) -> RowResult:
        paths: dict[str, Any] = {
            name: f"{self._url}/{path.name}"
            for name in ("video_path", "receipt_path", "sheet_path")
            if (path := getattr(result, name)) is not None
        }
        return replace(result, **paths)

    def _local(self, row_id: str, suffix: str) -> Path:
        return self.local / f"{row_id}{suffix}"


def folder_for(output: str) -> SharedFolder | Address:
    """The folder, or the address where there is "://" in it."""
    return Address(output) if "://" in output else SharedFolder(output)
