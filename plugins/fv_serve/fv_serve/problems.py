"""Errors of the API, in the format that OpenAI's clients read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.responses import Response


class ApiError(Exception):
    """What a client is answered instead of what it asked for.

    Attributes:
        status: of HTTP. param: the field that is wrong; None if it is none. code: for programs.
    """

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def as_dict(self) -> dict[str, Any]:
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Answer:
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.status in (429, 503):
            headers["Retry-After"] = "5"
        return Answer(self.as_dict(), self.status, headers)


class Answer(Response):
    """JSON in ASCII, so that it can be sent whatever letters a client had in its request."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")


def bad_value(param: str, message: str, code: str | None = None) -> ApiError:
    return ApiError(400, message, param, code)


def not_found(video_id: str) -> ApiError:
    shown = video_id if len(video_id) <= 100 else f"{video_id[:99]}…"
    return ApiError(404, f"there is no video {shown!r}; it may have expired, or been deleted", "video_id", "not_found")


@contextmanager
def unreadable(video_id: str) -> Iterator[None]:
    """Answer with status 404 where a file of a video is damaged, or was deleted since it was looked for."""
    try:
        yield
    except (OSError, ValueError, StopIteration) as error:
        message = f"a file of {video_id!r} is damaged on the server's disk, or was just deleted"
        raise ApiError(404, message, "video_id", "damaged") from error
