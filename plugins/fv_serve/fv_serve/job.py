"""A job: what was asked for, and how far it is."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

_PREFIX = "video_"
_ID = re.compile(r"video_[0-9a-f]{32}")


class Status(StrEnum):
    """As OpenAI's API names them."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


ENDED = (Status.COMPLETED, Status.FAILED)


@dataclass(frozen=True)
class Asked:
    """A video that was asked for, checked.

    Attributes:
        sampling: every sampling parameter that the service decides on, by name.
        cache: a caching policy; None: the service's.
        attention_backend: None: the service's.
    """

    prompt: str
    sampling: dict[str, Any] = field(default_factory=dict)
    cache: str | None = None
    attention_backend: str | None = None


@dataclass(frozen=True)
class Job:
    """A row of the store. Times are seconds since 1970.

    Attributes:
        id: also the name of its files.
        number: in the order in which jobs were accepted; the queue's order.
    """

    id: str
    asked: Asked
    status: Status = Status.QUEUED
    number: int = 0
    created_at: float = 0.0
    started_at: float | None = None
    completed_at: float | None = None
    expires_at: float | None = None
    error_code: str | None = None
    error_message: str | None = None


def new_id() -> str:
    """One that nobody can guess."""
    return _PREFIX + secrets.token_hex(16)


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None
