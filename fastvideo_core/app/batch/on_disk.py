"""What is there of a row already: a whole video with its receipt, nothing that counts, or something that stays.

Of the files of a video the MP4 gets its name last, when it and all others are on the disk. So a receipt alone is what
a run left that was killed, and a video that has its name is whole, unless someone damaged it later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fastvideo_core.app.batch.expected import differences
from fastvideo_core.errors import OutputError

_HEADER = 8
_WIDE = 16


@dataclass(frozen=True)
class Files:
    """Where the files of a row lie."""

    folder: Path
    id: str

    @property
    def video(self) -> Path:
        return self.folder / f"{self.id}.mp4"

    @property
    def receipt(self) -> Path:
        return self.folder / f"{self.id}.json"

    @property
    def sheet(self) -> Path:
        return self.folder / f"{self.id}.png"


def is_done(files: Files, expected: Mapping[str, Any], sheet: bool) -> bool:
    """Whether the row's video is there, whole, and made with these settings.

    Raises:
        OutputError: its names are taken by something else, which stays: a video with other settings, or that is
            damaged or has no receipt.
    """
    if not _taken(files.video):
        for path in (files.receipt, *([files.sheet] if sheet else [])):
            if _taken(path) and _read_receipt(files.receipt) is None:
                raise OutputError(f"{str(path)!r} is there, and is of no video; move it away, or choose another id")
        return False
    receipt = _read_receipt(files.receipt)
    if receipt is None:
        raise _stays(files, f"has no receipt {files.receipt.name} that can be read beside it")
    if not is_whole(files.video):
        raise _stays(files, "is damaged: parts of it are missing")
    different = list(differences(expected, receipt))
    if sheet and not files.sheet.is_file():
        different.append("a contact sheet is wanted now")
    if different:
        raise _stays(files, f"was made with other settings: {'; '.join(different)}")
    return True


def is_whole(path: Path) -> bool:
    """Whether an MP4's parts are all there: the sizes that they state fill the file, and one of them is the index."""
    try:
        with path.open("rb") as file:
            return b"moov" in _parts(file, path.stat().st_size)
    except (OSError, ValueError):
        return False


def _parts(file: BinaryIO, size: int) -> set[bytes]:
    kinds, position = set(), 0
    while position < size:
        file.seek(position)
        header = file.read(_WIDE)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[_HEADER:], "big")
        if length < _HEADER or position + length > size:
            raise ValueError("a part reaches beyond the file's end")
        kinds.add(header[4:_HEADER])
        position += length
    return kinds


def _read_receipt(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and "receipt_version" in content else None


def _taken(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _stays(files: Files, what: str) -> OutputError:
    return OutputError(f"{str(files.video)!r} is there and {what}; move it away, or choose another folder or id")
