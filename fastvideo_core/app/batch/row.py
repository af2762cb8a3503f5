"""One of many videos: what is asked for, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from fastvideo_core.app.result import VideoResult
from fastvideo_core.contract.caching import CachePolicy
from fastvideo_core.errors import InputError

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class PromptRow:
    """A video to make, one of many.

    Attributes:
        prompt: what it should show.
        id: the name of its files, without a suffix; made of the prompt where it is None.
        sampling: fields of `SamplingParam` that differ from those of the call.
        cache: a caching policy instead of the call's; None: the call's.
        place: where it stands, for errors: such as "prompts.jsonl:3".
    """

    prompt: str
    id: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    cache: str | CachePolicy | None = None
    place: str = ""


class RowStatus(StrEnum):
    """How a row ended: its video was made now, was whole on disk before, or there is none."""

    MADE = "made"
    FOUND = "found"
    FAILED = "failed"


@dataclass(repr=False)
class RowResult:
    """What came of a row.

    Attributes:
        id: the name of its files.
        video_path: the video; None where it failed.
        receipt_path: its receipt, likewise.
        sheet_path: its contact sheet, likewise; None too where none was asked for.
        seconds: what making it took; 0 where it was found.
        error: why it failed; None where it did not.
        video: the video itself, where it was made now; without frames if `return_frames` is False.
    """

    id: str
    prompt: str
    status: RowStatus
    video_path: Path | None = None
    receipt_path: Path | None = None
    sheet_path: Path | None = None
    seconds: float = 0.0
    error: BaseException | None = None
    video: VideoResult | None = None

    def __repr__(self) -> str:
        return f"RowResult(id={self.id!r}, status={self.status.value!r}, error={self.error!r})"

    def as_dict(self) -> dict[str, Any]:
        """Plain values: a line of the results."""
        paths = {name: getattr(self, name) for name in ("video_path", "receipt_path", "sheet_path")}
        return {
            "id": self.id,
            "prompt": self.prompt,
            "status": self.status.value,
            **{name: path and str(path) for name, path in paths.items()},
            "seconds": round(self.seconds, 3),
            "error": None if self.error is None else f"{type(self.error).__name__}: {self.error}",
        }


def check_id(given: object) -> str:
    """An id, if a file can have that name on any system.

    Raises:
        InputError: it cannot.
    """
    text = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
    if isinstance(text, str) and _FILE_NAME.fullmatch(text) and text[-1] != "." and not _DEVICES.fullmatch(text):
        return text
    raise InputError(
        f"the id {given!r} is no name for a file: give up to 120 of a to z, A to Z, 0 to 9, '.', '_' and '-', with "
        "neither '.' nor '-' in front, and no '.' at the end"
    )
