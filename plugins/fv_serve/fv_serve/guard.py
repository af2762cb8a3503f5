"""What stands before every request: who may come, from where, and how much they may send in what time."""

from __future__ import annotations

import asyncio
import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fv_serve.limits import Limits
from fv_serve.problems import ApiError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_OPEN = ("/health", "/", "/page/")
"""What is answered without a key: nothing that tells of a video."""
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
]


class Guard:
    """Refuses requests, and reads the body of the others whole before anything looks at it.

    Args:
        key: what clients must send; None: nothing, but then only pages and programs of this machine are answered.
    """

    def __init__(self, app: ASGIApp, key: str | None, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._key = None if key is None else key.encode("utf-8")  # as clients send it, whose bytes come as latin-1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        try:
            self._check(scope["path"], Headers(scope=scope))
            body = await self._body(Headers(scope=scope), receive)
        except ApiError as error:
            await error.response()(scope, receive, send_with_headers)
            return
        if body is not None:
            await self._app(scope, _replayed(body, receive), send_with_headers)

    def _check(self, path: str, headers: Headers) -> None:
        """Raise ApiError, status 401 or 403, unless the request may come."""
        if self._key is not None:
            public = path in _OPEN or path.startswith("/page/")
            kind, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode("latin-1"), self._key)
            if not public and not (right and kind.lower() == "bearer"):
                raise ApiError(401, "a wrong API key, or none: send Authorization: Bearer KEY", None, "invalid_api_key")
            return
        host = _host(headers.get("host", ""))
        if host not in LOOPBACK:
            raise ApiError(403, f"without an API key only this machine is served, not the host {host[:100]!r}")
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != headers.get("host"):
            raise ApiError(403, f"a page of {origin[:100]!r} may not use this server; open the server's own page")

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """The body; None where the client has gone away. Raises ApiError, status 408 or 413."""
        most = self._limits.body_bytes
        stated = headers.get("content-length", "0")
        if stated.isdigit() and int(stated[:20]) > most:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise self._too_large()
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            seconds = self._limits.body_seconds
            raise ApiError(408, f"the body did not come within {seconds:g} seconds", None, "timeout") from error

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is larger than {self._limits.body_bytes:,} bytes", "body", "too_large")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body that was read, once; then what else comes: that the client has gone away."""
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _host(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return header
