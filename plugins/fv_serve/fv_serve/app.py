"""The HTTP side: routes, and errors in the format of OpenAI's API."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.staticfiles import StaticFiles

from fv_serve import live
from fv_serve.guard import Guard
from fv_serve.job import Status
from fv_serve.problems import Answer, ApiError, bad_value
from fv_serve.reading import fields_of
from fv_serve.service import Service

PAGE = Path(__file__).parent / "page"
_MOST_LISTED = 100
_VARIANTS = {"video": (".mp4", "video/mp4"), "spritesheet": (".png", "image/png"), "thumbnail": (".mp4", "image/webp")}

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def build_app(
    service: Service, key: str | None, alive: Callable[[], bool] = lambda: True, lifespan: Lifespan | None = None
) -> FastAPI:
    """The application.

    Args:
        key: the API key that clients must send; None: none, for this machine alone.
        alive: whether videos are still being made.
    """
    app = FastAPI(title="fv serve", docs_url=None, redoc_url=None, lifespan=lifespan)
    _add_videos(app, service)
    _add_content(app, service)
    _add_about(app, service, alive)
    app.mount("/page", StaticFiles(directory=PAGE))
    app.add_exception_handler(ApiError, _answer)
    app.add_exception_handler(HTTPException, _answer)
    app.add_exception_handler(sqlite3.Error, _answer)
    app.add_exception_handler(Exception, _answer)
    app.add_middleware(Guard, key=key, limits=service.served.limits)
    return app


async def _answer(request: Request, error: Exception) -> Answer:
    if isinstance(error, ApiError):
        return error.response()
    if isinstance(error, HTTPException):
        message = f"{request.method} {request.url.path[:200]}: {error.detail}"
        return ApiError(error.status_code, message).response()
    if isinstance(error, sqlite3.Error):
        return ApiError(503, f"the jobs cannot be read or written: {error}; try again", None, "database").response()
    return ApiError(500, "the server failed; its log has the reason").response()


def _add_videos(app: FastAPI, service: Service) -> None:
    @app.post("/v1/videos")
    async def create(request: Request) -> Answer:
        fields = await fields_of(request)
        job = await run_in_threadpool(service.create, fields)
        return Answer(await run_in_threadpool(service.describe, job))

    @app.post("/v1/videos/sync")
    async def create_and_wait(request: Request) -> Response:
        job = await run_in_threadpool(service.create, await fields_of(request))
        job = await live.ended(service, job, request.is_disconnected)
        if job.status is Status.FAILED:
            raise ApiError(
                400 if job.error_code == "invalid_request" else 500, job.error_message or "", None, job.error_code
            )
        return FileResponse(service.file(job.id, ".mp4"), media_type="video/mp4", headers={"X-Video-Id": job.id})

    @app.get("/v1/videos")
    async def listing(request: Request) -> Answer:
        return Answer(await run_in_threadpool(_page, service, dict(request.query_params)))

    @app.get("/v1/videos/{video_id}")
    async def retrieve(video_id: str) -> Answer:
        return Answer(await run_in_threadpool(lambda: service.describe(service.get(video_id))))

    @app.delete("/v1/videos/{video_id}")
    async def delete(video_id: str) -> Answer:
        await run_in_threadpool(service.delete, video_id)
        return Answer({"id": video_id, "object": "video.deleted", "deleted": True})


def _page(service: Service, query: dict[str, str]) -> dict[str, Any]:
    limit, order, after = query.get("limit", "20"), query.get("order", "desc"), query.get("after")
    if not limit.isdecimal() or not limit.isascii() or not 1 <= int(limit[:9]) <= _MOST_LISTED:
        raise bad_value("limit", f"limit must be 1 to {_MOST_LISTED}, not {limit[:100]!r}")
    if order not in ("asc", "desc"):
        raise bad_value("order", f"order must be asc or desc, not {order[:100]!r}")
    found = service.store.page(after, int(limit), order == "desc")
    if found is None:
        raise bad_value("after", f"there is no video {(after or '')[:100]!r} to list those after", "not_found")
    data = [service.describe(job) for job in found[0]]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": found[1]}


def _add_content(app: FastAPI, service: Service) -> None:
    @app.api_route("/v1/videos/{video_id}/content", methods=["GET", "HEAD"])
    async def content(video_id: str, request: Request) -> Response:
        variant = request.query_params.get("variant", "video")
        if variant not in _VARIANTS:
            raise bad_value("variant", f"variant must be {', '.join(_VARIANTS)}, not {variant[:100]!r}")
        suffix, kind = _VARIANTS[variant]
        if variant == "thumbnail":
            return Response(await run_in_threadpool(service.thumbnail, video_id), media_type=kind)
        path = await run_in_threadpool(service.file, video_id, suffix)
        return FileResponse(path, media_type=kind, filename=path.name, content_disposition_type="inline")

    @app.get("/v1/videos/{video_id}/receipt")
    async def receipt(video_id: str) -> Answer:
        return Answer(await run_in_threadpool(service.receipt, video_id))


def _add_about(app: FastAPI, service: Service, alive: Callable[[], bool]) -> None:
    @app.get("/v1/models")
    async def models() -> Answer:
        return Answer({"object": "list", "data": [service.served.as_dict()]})

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> Answer:
        if model != service.served.model:
            raise ApiError(404, f"the model {model[:100]!r} is not served here; {service.served.model!r} is", "model")
        return Answer(service.served.as_dict())

    @app.get("/health")
    async def health() -> Answer:
        well = alive() and not service.stopping.is_set()
        return Answer({"status": "ok" if well else "ill", "model": service.served.model}, 200 if well else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        text = await run_in_threadpool(service.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/events")
    async def events(request: Request) -> Response:
        lines: AsyncIterator[bytes] = live.events(service, request.is_disconnected)
        return StreamingResponse(lines, media_type="text/event-stream")

    @app.get("/")
    async def page() -> Response:
        return FileResponse(PAGE / "index.html")
